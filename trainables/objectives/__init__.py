"""Objectives: losses that a run's file names, whose numbers a population may search. One file holds one."""
