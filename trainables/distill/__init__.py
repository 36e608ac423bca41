"""Distilling a large transformer into a family of small ones that share their weights (AutoDistil, 2022)."""
