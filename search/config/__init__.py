"""What a run's file may say: its sections, their keys and defaults. Nothing here knows a check."""
