"""What one member does: torch models, losses and their training steps, without Ray."""
