"""The commands `run`, `resume` and `replay`: a module for each kind of run."""
