"""Arrays out of an .npz that somebody gave: whatever is wrong with the file is one sentence."""

import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from kinema.core.errors import DataError

# What numpy and zipfile raise for files that are damaged here or there.
_DAMAGED = (
    *(OSError, ValueError, EOFError, LookupError, NotImplementedError, OverflowError, RecursionError, SyntaxError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return arrays of an .npz; no object is unpickled.

    Args:
        path: the file.
        names: of the arrays that are wanted, as far as they are there; None for all.

    Raises:
        DataError: when the file is missing, damaged or no .npz.
    """
    try:
        with path.open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("it holds one array, as an .npy does")
            with found:
                return {name: found[name] for name in found.files if names is None or name in names}
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is damaged or no .npz: {reason}") from None
