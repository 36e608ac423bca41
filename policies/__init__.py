"""What to do next: pure decisions in plain numpy."""
