"""Runs of kind `distill`: super-networks of several sub-spaces, and the students picked out of them."""
