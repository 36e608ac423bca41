"""What several benchmarks share: tasks, small models, peers. None of these is a program."""
