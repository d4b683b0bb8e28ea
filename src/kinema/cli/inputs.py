"""Several files behind a verb: folders are searched, what is made already stays, and a bad file does not stop the rest."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kinema.core.errors import DataError, KinemaError

if TYPE_CHECKING:
    from kinema.cli.output import Output

FileT = TypeVar("FileT")
FoundT = TypeVar("FoundT")


def usable(files: Sequence[FileT], do: Callable[[FileT], FoundT]) -> list[FoundT]:
    """Do something with every file; of several, one that cannot be used is named, with the reason, and left out."""
    found: list[FoundT] = []
    for file in files:
        try:
            found.append(do(file))
        except KinemaError as error:
            if len(files) == 1:
                raise
            print(f"kinema: {error}", file=sys.stderr)
    return found


def media_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, and in place of a folder the images and clips in it, in natural order.

    Raises:
        DataError: for a folder that holds none.
    """
    from kinema.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
    from kinema.data.sources import natural

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
        found = [file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
        if not found:
            raise DataError(f"{path} holds no images or clips; folders in it are not searched")
        if others := len(inside) - len(found):
            print(f"{path}: {others} {'file that is' if others == 1 else 'files that are'} no image or clip passed over")
        files += sorted(found, key=lambda file: natural(file.name))
    return files


class Queue:
    """Files of which each becomes one clip.

    Args:
        files: in the order of the clips.
        output: where the clips go; what is there already is said and not made again.

    Raises:
        DataError: for a file that would be written over.
    """

    def __init__(self, files: Sequence[Path], output: "Output") -> None:
        self._output, self._count, self._failed = output, len(files), 0
        self._left = dict(enumerate(files))
        own = {file.resolve() for file in files}
        if same := next((file for file in output.files if file.resolve() in own), None):
            raise DataError(f"{same} is what the result is made of; give another --out")
        for number in output.there:
            print(f"{output.files[number]} is there already; --overwrite makes it again")
            del self._left[number]

    def each(self, do: Callable[[int, Path], FoundT]) -> dict[int, FoundT]:
        """Do something with every file that is left, the output turned to its clip; returns what came of it by number.

        Of several files with results of their own, one that cannot be used is named, with the reason, and is left no more.
        """
        alone = self._count == 1 or self._output.together
        found: dict[int, FoundT] = {}
        for number, file in list(self._left.items()):
            self._output.turn_to(number)
            try:
                found[number] = do(number, file)
            except KinemaError as error:
                if alone:
                    raise
                print(f"kinema: {error}" if file.name in str(error) else f"kinema: {file}: {error}", file=sys.stderr)
                del self._left[number]
                self._failed += 1
        return found

    @property
    def words(self) -> str:
        """How many files are left, of how many."""
        of = "" if len(self._left) == self._count else f"{len(self._left)} of "
        return f"{of}{self._count} {'file' if self._count == 1 else 'files'}"

    def finish(self, what: str) -> int:
        """Close the output and say what was made; returns the exit status: 1 where a file was bad, 2 where all were."""
        if self._left:
            print(f"{what}: {self._output.close()}")
        elif self._failed == self._count:
            return 2
        elif not self._failed:
            print("nothing is left to make")
        return int(self._failed > 0)
