"""Studies in which people judge: which of two clips do they prefer?

`design` lays out the trials, `store` keeps the answers, `server` shows the pages, `results` counts.
"""
