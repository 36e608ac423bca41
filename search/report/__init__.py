"""The report of a run: one HTML file, drawn from its directory."""
