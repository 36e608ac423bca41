"""Puts policies, trainables and the cluster together; holds the command line."""

import os

# set before numpy is first imported: our matrices are small, and BLAS threads would only wait for cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
