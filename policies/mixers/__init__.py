"""Policies that set the proportions over groups while a member trains: see `visits` for how they are run."""
