"""Footage into datasets, datasets into batches."""
