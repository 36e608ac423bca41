"""The corpus of a run: from documents to rows of tokens in Parquet, and from rows to batches."""
