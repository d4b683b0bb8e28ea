"""``kinema pose draw``: poses as pictures, alone or on top of the film in which they were found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from jaxtyping import UInt8

from kinema.cli.arguments import parse
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError, MediaError, accepted

if TYPE_CHECKING:
    from kinema.data.media import MediaInfo
    from kinema.pose.sequence import Poses

Image = UInt8[np.ndarray, "H W 3"]
Painter = Callable[..., UInt8[np.ndarray, "T H W 3"]]
"""Poses, and `over`, frames to draw on -> pictures."""
SAME_SHAPE = 0.02
"""How far, relatively, the aspect ratios of poses and film may be apart: whole pixels and padding are no other picture."""
SAME_RATE = 0.01
SHEET_FRAMES = 8
NUMBERED = "[0-9]" * 6 + ".png"


@dataclass(frozen=True, kw_only=True)
class DrawArguments(Config):
    """Draw poses as stick figures, on an empty canvas or over the film."""

    poses: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POSES", help_behavior_hint="")]
    """An .npz, or a folder of OpenPose's *_keypoints.json."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE|FOLDER")]
    """.mp4 or .webm for a film, .gif, .webp or .apng for a moving picture, .png for a sheet of 8 frames; without an ending, a
    folder with one .png per frame."""
    style: str = "edn"
    """edn (white, warm right and cool left sides), openpose (black, saturated hues), pose-knows (black, thick lines) or
    confidence (as openpose, darker where the detector was unsure). Of bodies alone also gaussian (a bump per joint) and sticks
    (soft limbs): the maps that networks learn through."""
    size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Shorter side of the frames in pixels. Default: that of the poses, or of the film under them."""
    over: Annotated[Path | None, tyro.conf.arg(metavar="FILM", help_behavior_hint="")] = None
    """Draw on the frames of this film; its sound is kept in .mp4 and .webm."""
    threshold: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Joints of this confidence or less are not drawn. Default: the style's."""
    body: bool = True
    """Bodies are drawn."""
    face: bool = True
    """Faces are drawn."""
    hands: bool = True
    """Hands are drawn."""
    width: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Of the frames that OpenPose saw, where its folder does not say it. Default: the film's."""
    height: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Of the frames that OpenPose saw, likewise."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Frames per second that OpenPose saw, likewise."""
    overwrite: bool = False
    """Replace what exists."""

    def check(self) -> None:
        """Refuse a size in which nothing can be seen."""
        self.require(self.size is None or 8 <= self.size <= 8192, "size", "from 8 to 8192 pixels")


def run(arguments: list[str]) -> int:
    """Run ``kinema pose draw``."""
    asked = parse(DrawArguments, arguments, "pose draw")
    draw = _painter(asked)
    _refuse_existing(asked.out, asked.overwrite)
    from kinema.data.media import probe
    from kinema.data.tags import drawn_tags
    from kinema.pose.files import read_poses

    film = probe(asked.over) if asked.over else None
    given = {"width": asked.width, "height": asked.height, "fps": asked.fps}
    if film:
        found = {"width": film.width, "height": film.height, "fps": float(film.fps) if film.fps else None}
        given = {name: given[name] if given[name] is not None else found[name] for name in given}
    poses = read_poses(asked.poses, **given, frames=film.frames if film else None)
    _refuse_other_footage(asked, poses)
    if len(poses) == 0:
        raise DataError(f"{asked.poses} holds no frames; there is nothing to draw")
    if film:
        _refuse_another_picture(asked.poses, poses, film)
    width, height = _frame_size(asked, (film.width, film.height) if film else (poses.width, poses.height))
    poses = poses.resized(width, height)
    tags = drawn_tags(f"{asked.poses.name} in style {asked.style}", film.metadata if film else None)
    with _sink(asked.out, width, height, poses.fps, tags, asked.over) as show:
        _draw_all(asked, poses, draw, film, show)
    empty = int((~poses.present.any(axis=(1, 2))).sum())
    nobody = f"; nobody in {empty} of them" if empty else ""
    print(f"{asked.out}: {len(poses)} frames of {width}x{height} in style {asked.style}{nobody}")
    return 0


def _refuse_other_footage(asked: DrawArguments, poses: "Poses") -> None:
    for name in ("width", "height", "fps"):
        wanted, have = getattr(asked, name), getattr(poses, name)
        if wanted is not None and wanted != have:
            raise ConfigError(f"{asked.poses} says itself that its frames have a {name} of {have:g}; leave out --{name}")


def _draw_all(
    asked: DrawArguments, poses: "Poses", draw: "Painter", film: "MediaInfo | None", show: Callable[[Image], object]
) -> None:
    from kinema.cli.terminal import Progress

    with Progress() as progress:
        for number, under in enumerate(_frames(asked.poses, poses, film)):
            over = None if under is None else under[None]
            show(draw(poses.window(number, number + 1), over=over)[0])
            progress.show("drawing", number + 1, len(poses))


def _painter(asked: DrawArguments) -> "Painter":
    """Return what draws poses in the style that is asked for."""
    from kinema.pose.draw import MAPS, STYLES, draw

    if asked.style in MAPS:
        if not (asked.body and asked.face and asked.hands and asked.threshold is None):
            raise ConfigError(f"style {asked.style} shows every joint of bodies; leave out --threshold and the parts")
        from kinema.pose.maps import show  # with torch, which the other styles do without

        return partial(show, kind=asked.style)
    if asked.style not in STYLES:
        raise ConfigError(f"there is no style {asked.style!r}; {accepted(asked.style, [*STYLES, *MAPS])}")
    style = replace(STYLES[asked.style], body=asked.body, face=asked.face, hands=asked.hands)
    return partial(draw, style=style if asked.threshold is None else replace(style, threshold=asked.threshold))


def _frame_size(asked: DrawArguments, natural: tuple[int, int]) -> tuple[int, int]:
    """Return width and height: the natural ones, or scaled to the shorter side; even where the format wants it."""
    scale = asked.size / min(natural) if asked.size else 1.0
    step = 2 if asked.out.suffix.lower() == ".mp4" else 1
    width, height = (max(step, round(side * scale / step) * step) for side in natural)
    return width, height


def _refuse_another_picture(file: Path, poses: "Poses", film: "MediaInfo") -> None:
    if abs(poses.width * film.height / (poses.height * film.width) - 1) > SAME_SHAPE:
        raise DataError(
            f"the poses of {file} are of {poses.width}x{poses.height} frames and {film.path} has {film.width}x{film.height}: "
            "that is another part of the picture; name the film in which they were found"
        )


def _frames(file: Path, poses: "Poses", film: "MediaInfo | None") -> Iterator[Image | None]:
    """Yield what is under each pose: the film's frames at the rate of the poses, or nothing.

    Raises:
        DataError: when the film has more or fewer frames than there are poses.
    """
    if film is None:
        yield from (None for _ in range(len(poses)))
        return
    from kinema.data.media import read_frames, resample

    same = film.fps is None or abs(poses.fps / float(film.fps) - 1) < SAME_RATE
    frames = read_frames(film, resize=lambda *_: (poses.width, poses.height))
    for number, (place, image) in enumerate(zip_longest(range(len(poses)), resample(frames, None if same else poses.fps))):
        if place is None or image is None:
            film_has = f"only {number}" if image is None else "more"
            raise DataError(
                f"{file} has {len(poses)} frames at {poses.fps:g} per second and {film.path} has {film_has} at that rate; "
                "name the film in which the poses were found"
            )
        yield image


# --- Where the pictures go ----------------------------------------------------------------------------------------------------


def _refuse_existing(out: Path, overwrite: bool) -> None:
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not overwrite:
        raise MediaError(f"{out} exists; give another --out, or --overwrite to replace it")


@contextmanager
def _sink(
    out: Path, width: int, height: int, fps: float, tags: dict[str, str], sound: Path | None
) -> Iterator[Callable[[Image], object]]:
    """Yield what takes the next picture; films grow frame by frame, other files are written at the end.

    Raises:
        MediaError: for an ending of no known format, or a place that cannot be written.
    """
    from kinema.data.encode import OUTPUT_SUFFIXES
    from kinema.data.film import FILM_SUFFIXES, film

    suffix = out.suffix.lower()
    if suffix and suffix not in OUTPUT_SUFFIXES:
        raise MediaError(f"{out} ends in {suffix!r}; accepted: {', '.join(OUTPUT_SUFFIXES)}, or no ending for a folder")
    folder = out.parent if suffix else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"the folder {folder} cannot be made: {error.strerror}") from None
    if suffix in FILM_SUFFIXES:
        with film(out, width, height, fps, metadata=tags, sound=sound) as made:
            yield made.add
    elif suffix:
        images: list[Image] = []
        yield images.append
        _write_at_once(out, images, fps, tags)
    else:
        with TemporaryDirectory(prefix=f".{out.name}.tmp-", dir=out.parent) as made:
            yield _Folder(Path(made), tags).add
            _exchange(out, Path(made))


def _write_at_once(out: Path, images: Sequence[Image], fps: float, tags: dict[str, str]) -> None:
    from kinema.data.encode import contact_sheet, write_image, write_video

    video = np.stack(images)
    if out.suffix.lower() == ".png":
        write_image(out, contact_sheet([video], frames=SHEET_FRAMES), metadata=tags)
    else:
        write_video(out, video, fps, metadata=tags)


def _exchange(folder: Path, made: Path) -> None:
    """Put new pictures in place of those of an earlier drawing."""
    for old in folder.glob(NUMBERED):
        old.unlink()
    for picture in made.glob(NUMBERED):
        picture.replace(folder / picture.name)


class _Folder:
    """One .png per frame, numbered from 0."""

    def __init__(self, folder: Path, tags: dict[str, str]) -> None:
        self._folder, self._tags, self._count = folder, tags, 0

    def add(self, image: Image) -> None:
        """Write the next picture."""
        from kinema.data.encode import write_image

        write_image(self._folder / f"{self._count:06d}.png", image, metadata=self._tags)
        self._count += 1
