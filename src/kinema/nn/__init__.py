"""Building blocks used unchanged by two or more systems."""
