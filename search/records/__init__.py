"""What a run directory holds: its settings, its tables, its lineage."""
