"""Footage in and out: decoding, shots, stabilising, preparing, datasets, procedural people."""
