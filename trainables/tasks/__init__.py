"""Trainables for special ends, which a run's file names as `shoal.trainables.tasks.MODULE:CLASS`."""
