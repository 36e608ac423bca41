"""Which rows are trained on, how often and with what weight: decisions from row ids and their losses."""
