"""What work that may be stopped has done so far: arrays in a file, until all of it is there."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kinema.core.arrays import read_arrays
from kinema.core.errors import DataError
from kinema.data.encode import beside

UNFINISHED = "unfinished"  # folder beside a report that is not written yet

ArrayT = TypeVar("ArrayT", bound=np.ndarray)


@dataclass(frozen=True)
class Unfinished:
    """Arrays of work that may be stopped.

    Attributes:
        file: where they are; its folder is made where missing.
        what: JSON values that decide about them; a file of others counts as none.
    """

    file: Path
    what: Sequence[Any]

    def load(self) -> dict[str, np.ndarray]:
        """Return what there is; a damaged file, or one of other work, has nothing."""
        try:
            arrays = read_arrays(self.file)
            return arrays if arrays.pop("what").item() == json.dumps(self.what) else {}
        except (DataError, ValueError, KeyError):
            return {}

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write all arrays, whole or not at all.

        Raises:
            MediaError: when the file cannot be written.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with beside(self.file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **{"what": np.array(json.dumps(self.what)), **arrays})


def keeping(
    make: Callable[[Sequence[int]], Sequence[ArrayT]], folder: Path, what: Sequence[Any]
) -> Callable[[Sequence[int]], list[ArrayT]]:
    """Return what keeps every clip (or other array) that is made in a file of its own, and makes none twice.

    Args:
        make: numbers -> clips, each a function of its number alone.
        folder: made where missing; whoever has used the clips deletes it.
        what: JSON values that decide about them.
    """

    def read(numbers: Sequence[int]) -> list[ArrayT]:
        files = {number: Unfinished(folder / f"{number}.npz", what) for number in numbers}
        clips: dict[int, Any] = {number: arrays["clip"] for number, file in files.items() if (arrays := file.load())}
        missing = [number for number in files if number not in clips]
        for number, clip in zip(missing, make(missing) if missing else (), strict=True):
            files[number].save({"clip": clip})
            clips[number] = clip
        return [clips[number] for number in numbers]

    return read
