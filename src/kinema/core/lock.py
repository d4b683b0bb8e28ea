"""Folders that one process at a time works in."""

from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


def is_held(file: BinaryIO) -> bool:
    """Lock a file against other processes until it is closed; tell whether another one holds it already."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    return False
