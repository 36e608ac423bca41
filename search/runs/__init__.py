"""What the commands do with a run, a module for each kind of run."""
