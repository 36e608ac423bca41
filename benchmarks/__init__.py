"""Programs that measure Shoal beside the stock tools; each prints one JSON object last."""
