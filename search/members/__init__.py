"""The members of a run: trainables that mix groups and choose rows as its file says."""
