"""Mixtures from small runs: laws that are fitted to their losses, and what the laws propose."""
