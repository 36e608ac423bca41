"""Puts policies, trainables and the cluster together; holds the command line."""
