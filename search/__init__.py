"""Puts policies, trainables and the cluster together; holds the command line."""

import os

# before numpy is first imported: the scheduler's matrices are small, and its threads would wait for cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
