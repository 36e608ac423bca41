"""What other tools are told of a run, beside its own records."""
