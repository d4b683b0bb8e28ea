"""Judging: what people prefer, and what can be measured."""
