"""The front door: what `import shoal` and the small commands around a run offer."""
