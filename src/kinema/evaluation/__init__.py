"""Judging: numbers that carry their protocol and their noise floor, and what people prefer."""
