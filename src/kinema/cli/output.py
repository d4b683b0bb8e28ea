"""Where sampled clips go: a folder with a file per clip, or one file that holds them all."""

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import MediaError
from kinema.data.encode import OUTPUT_SUFFIXES, beside, contact_sheet, write_image, write_video
from kinema.data.film import FILM_SUFFIXES, film
from kinema.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from kinema.data.tags import generated_tags, write_sidecar
from kinema.training.sheets import grid

ARRAY_SUFFIX = ".npy"
SHEET_NAME = "sheet"
SHEET_FRAMES = 8

Clip = UInt8[np.ndarray, "T H W 3"]
Picture = UInt8[np.ndarray, "_ _ 3"]


class Output:
    """Files for named clips; nothing is written before every name is known to be free.

    A clip may come as a row of clips that belong beside each other (streams; original and reconstruction).

    Args:
        out: a folder, or a file whose suffix decides the format.
        names: of the clips, in order.
        suffix: format of the files in a folder, such as ``.mp4``.
        sheet: one file for all clips also in a folder.
        fps: frames per second of the files.
        about: what made the clips; every file says it.
        overwrite: replace files.
        stills: names of images, which become PNGs in a folder.
        resume: of several files in a folder those that exist stay, and are `there`.

    Attributes:
        names: of the clips.
        files: where the clips go; the one file where there is one.
        there: numbers of the files that stay.

    Raises:
        MediaError: for a format that cannot be written, two clips of one name, a file that exists, or a folder that cannot be
            made or written to.
    """

    def __init__(
        self,
        out: Path,
        names: Sequence[str],
        *,
        suffix: str,
        sheet: bool,
        fps: float,
        about: str,
        overwrite: bool,
        stills: Collection[str] = (),
        resume: bool = False,
    ) -> None:
        ending = out.suffix.lower()
        is_file = ending in VIDEO_SUFFIXES | IMAGE_SUFFIXES | {ARRAY_SUFFIX}
        if is_file and ending not in (*OUTPUT_SUFFIXES, ARRAY_SUFFIX):
            raise MediaError(f"{out} ends in {ending!r}; accepted: {', '.join((*OUTPUT_SUFFIXES, ARRAY_SUFFIX))}")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise MediaError(f"two clips would be called {twice!r}; give them to separate folders")
        self.out, self.names, self.fps, self.about = out, names, fps, about
        self.one_file = out if is_file else out / f"{SHEET_NAME}{suffix}" if sheet else None
        self.together = self.one_file is not None and len(names) > 1
        endings = [".png" if name in stills else suffix for name in names]
        own = [out / f"{name}{ending}" for name, ending in zip(names, endings, strict=True)]
        self.files = [self.one_file] if self.one_file else own
        self.there = [] if overwrite else [number for number, file in enumerate(self.files) if file.exists()]
        if self.there and not (resume and len(self.files) > 1):
            raise MediaError(f"{self.files[self.there[0]]} exists; give another --out, or --overwrite to replace it")
        refuse_unwritable(self.files[0].parent)
        self.rows: list[list[Clip]] = []
        self.rate: Fraction | float | None = None
        self._next = 0

    def turn_to(self, number: int) -> None:
        """Take the clip with this number next, and leave out those before it that have not come."""
        self._next = number

    def add(self, row: Sequence[Clip], fps: Fraction | float | None = None) -> None:
        """Take the next clip: write its file, or keep it for the one file.

        Args:
            row: clips that belong beside each other.
            fps: of this file; None for that of all.

        Raises:
            MediaError: when the file cannot be written, or the one file holds clips of another shape.
        """
        if not self.one_file:
            self._write(self._file, [list(row)], fps)
        else:
            if self.rows and row[0].shape != self.rows[0][0].shape:
                shapes = ["x".join(map(str, clips.shape[:3])) for clips in (self.rows[0][0], row[0])]
                raise MediaError(f"clips of {shapes[0]} and {shapes[1]} cannot share {self.one_file}; give --out a folder")
            self.rows.append(list(row))
            self.rate = fps
        self._next += 1

    def stream(self, frames: Iterable[Picture], width: int, height: int, fps: Fraction, sound: Path | None = None) -> str:
        """Take the next clip picture by picture; memory does not grow with it where `streams` says so.

        Args:
            frames: its pictures.
            width: of them.
            height: of them.
            fps: of this clip.
            sound: film whose sound it keeps, where the format has sound.

        Returns:
            What became of the sound, in words.
        """
        if not self.streams:
            self.add([np.stack(list(frames))], fps)
            return "no sound"
        self.make_folder(self._file)
        with film(self._file, width, height, fps, metadata=self.tags, sound=sound) as made:
            for frame in frames:
                made.add(frame)
        self._next += 1
        return made.sound

    @property
    def name(self) -> str:
        """Of the next clip."""
        return self.names[self._next]

    @property
    def _file(self) -> Path:
        """Of the next clip."""
        return self.files[0 if self.one_file else self._next]

    @property
    def streams(self) -> bool:
        """Whether the next clip goes into its file as it is made."""
        return not self.together and self._file.suffix.lower() in FILM_SUFFIXES

    def refuse_size(self, width: int, height: int) -> None:
        """Raise `MediaError` for a size of the next clip that its format does not take, before anything is made."""
        if not self.together and self._file.suffix.lower() == ".mp4" and (width % 2 or height % 2):
            raise MediaError(
                f"{self._file}: {width}x{height} frames; .mp4 needs an even width and height, --format webm takes any"
            )

    def close(self) -> Path:
        """Write the one file; return what a person should look at."""
        if self.one_file and self.rows:
            self._write(self.one_file, self.rows, self.rate)
        return self.one_file or self.out

    def make_folder(self, file: Path) -> None:
        """Make the folder of a file where it is missing."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"the folder {file.parent} cannot be made: {error.strerror}") from None

    def _write(self, file: Path, rows: Sequence[Sequence[Clip]], fps: Fraction | float | None) -> None:
        self.make_folder(file)
        if file.suffix.lower() == ARRAY_SUFFIX:
            array = [np.concatenate(list(row), axis=2) for row in rows]
            with beside(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, array[0] if len(array) == 1 else np.stack(array), allow_pickle=False)
            write_sidecar(file, self.tags)
            return
        cells = [clip for row in rows for clip in row]
        if file.suffix.lower() == ".png" and len(cells) > 1:
            write_image(file, contact_sheet(cells, frames=SHEET_FRAMES), metadata=self.tags)
            return
        columns = len(rows[0]) if len(rows[0]) > 1 else math.ceil(math.sqrt(len(rows)))
        write_video(file, grid(cells, columns) if len(cells) > 1 else cells[0], float(fps or self.fps), metadata=self.tags)

    @property
    def tags(self) -> Mapping[str, str]:
        """What every file says of itself."""
        return generated_tags(self.about)


def refuse_unwritable(folder: Path) -> None:
    """Raise `MediaError` for a folder that cannot be made or written to: before clips are made, which may take hours."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise MediaError(f"the folder {folder} cannot be made: {there} is a file; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MediaError(f"no file can be written to {folder}: {there} is not yours to write to; give another --out")
