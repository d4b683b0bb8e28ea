"""kinema: deep generative video on your own footage."""

__version__ = "0.1.0"
