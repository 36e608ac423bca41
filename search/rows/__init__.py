"""Which rows an epoch keeps: sampling policies between a stream and its member."""
