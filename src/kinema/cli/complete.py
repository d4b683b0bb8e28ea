"""Verbs for systems that complete clips: predict what follows or came before, interpolate between, inpaint what is hidden.

A system works at its own size on windows of the length that it was trained with. What is known comes back untouched, in the
full size of the footage: results are enlarged and known pixels put over them. Footage is read twice, frame by frame: small, to
be completed, and in full, to be written.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Bool, UInt8

from kinema.cli.arguments import parse
from kinema.cli.inputs import Queue, media_files
from kinema.cli.sample import Files, Sampled
from kinema.cli.steering import Number, Real, Steered, Steering, amount, fitting_batch, sampling_bytes, say_untrained, steered
from kinema.cli.terminal import Progress
from kinema.core.errors import CheckpointError, ConfigError, DataError, MediaError
from kinema.core.shape import ClipShape

if TYPE_CHECKING:
    from kinema.cli.output import Output
    from kinema.cli.trained import Trained
    from kinema.data.clean_plate import CleanPlate
    from kinema.data.fitting import Fitting
    from kinema.data.mask_files import MaskSource
    from kinema.data.masks import Known
    from kinema.data.media import MediaInfo

Clip = UInt8[np.ndarray, "_ _ _ 3"]
Picture = UInt8[np.ndarray, "_ _ 3"]

COPIES = 5  # of a clip at the system's size that are in memory at a time
LOOKS = 33  # frames of a clip in full size from which its clean plate is taken
GREY = 128  # what is hidden, side by side with the result


@dataclass(frozen=True, kw_only=True)
class Completed(Steering, Sampled):
    """What the verbs understand that complete clips."""

    known_guidance: Real = None
    """The same weight of the known pixels: more follows them more closely, 1 saves an evaluation a step."""
    fps: Real = None
    """Frames per second of the files. Default: those of what is given; of images those that the system was trained on."""
    seed: int = 0
    """Seed of the first result, counted up per file; another seed imagines something else."""
    fit: Literal["letterbox", "crop"] = "letterbox"
    """Where the footage has another aspect than the frames that the system can make. letterbox: it sees everything, in a frame
    filled up with repeated edges. crop: it sees the middle, and new frames show that alone."""

    def check(self) -> None:
        """Refuse a negative seed."""
        super().check()
        self.require(self.seed >= 0, "seed", "0 or more")


@dataclass(frozen=True, kw_only=True)
class Continue(Completed):
    """Continue images and clips: what was given comes back untouched, in its size and at its rate, and new frames follow."""

    made = "predicted"

    files: Files
    """Images, of which each is the first frame, or clips; or folders of them."""
    frames: Number = None
    """New frames. Default: as many as are made at once."""
    past: Number = None
    """Frames that the system is shown. Default: half of those that it makes at once, or the whole clip if that is less. Of
    a result longer than what is made at once, as many of the last frames are shown to it again and again."""
    backward: bool = False
    """Make what came before the first frame."""
    loop: bool = False
    """Make frames that lead from the last frame back to the first."""

    def check(self) -> None:
        """Refuse what cannot be continued."""
        super().check()
        self.require(self.frames is None or self.frames >= 1, "frames", "at least 1")
        self.require(self.past is None or self.past >= 1, "past", "at least 1")
        if not self.files:
            raise ConfigError("predict wants images or clips, and none is named")
        if self.backward and self.loop:
            raise ConfigError("--loop leads from the last frame to the first; leave out --backward")


@dataclass(frozen=True, kw_only=True)
class Between(Completed):
    """Make what lies between two images, or between the end of one clip and the beginning of another.

    The result begins with the image, or the last frame of the clip, and ends with the other. A system that walks between seeds
    is asked with --from and --to.
    """

    made = "interpolated"

    files: Files
    """Two images or clips of one size."""
    frames: Number = None
    """Frames between them. Default: as many as are made at once, but the two."""
    past: Number = None
    """Frames of a clip that the system is shown at each end. Default: as many as there is room for; of an image one."""

    def check(self) -> None:
        """Refuse anything but two ends."""
        super().check()
        self.require(self.frames is None or self.frames >= 1, "frames", "at least 1")
        self.require(self.past is None or self.past >= 1, "past", "at least 1")
        if len(self.files) != 2:
            raise ConfigError(
                f"interpolate wants two images or clips, and {len(self.files) or 'none'} is named; seeds are given with --from "
                "and --to"
            )


@dataclass(frozen=True, kw_only=True)
class Inpaint(Completed):
    """Fill in what a mask hides of clips and images; every pixel outside of it stays as it was."""

    made = "inpainted"

    files: Files
    """Clips or images, or folders of them; their size, rate and sound are kept."""
    mask: Annotated[str, tyro.conf.arg(metavar="FILE|X,Y,W,H|DIR")]
    """What is hidden: white in an image (for all frames) or in a film (frame by frame); a box; or a track, .npy with a row
    x, y, width, height per frame. A folder holds one for every clip, called as the clip is."""
    invert: bool = False
    """Hide what the mask does not hide."""
    feather: float = 0.0
    """Pixels inside the mask over which colours come out of those at its edge."""
    overlap: Number = None
    """Frames of a longer clip that the system has filled in before and is shown again. Default: half of those that it makes at
    once."""
    clean_plate: bool = True
    """Take from other frames what they show of a hidden place, in full size, where it stays as it is over time and the result
    agrees, as nearly as the system remembers what it is shown. --no-clean-plate leaves all that is hidden to the system."""
    view: Literal["result", "side-by-side"] = "result"
    """side-by-side: what was given, the hidden grey, and the result."""

    def check(self) -> None:
        """Refuse what is no width or overlap, and no files."""
        super().check()
        if not self.files:
            raise ConfigError("inpaint wants clips or images, and none is named")
        self.require(0 <= self.feather <= 1000, "feather", "from 0 to 1000")
        self.require(self.overlap is None or self.overlap >= 0, "overlap", "0 or more")


@dataclass(frozen=True)
class Footage:
    """A file and how the system sees it."""

    info: "MediaInfo"
    way: "Fitting"

    def images(self) -> Iterator[Picture]:
        """Yield the frames in full size at a constant rate."""
        from kinema.data.media import read_frames, resample

        return resample(read_frames(self.info), None)

    def cut(self) -> Iterator[Picture]:
        """Yield the part of every frame that the system sees, in full size."""
        return map(self.way.cut, self.images())

    def last(self, count: int) -> Clip:
        """Return the last frames, or all if there are fewer, at the system's size."""
        return np.stack(list(deque(map(self.way.inward, self.images()), count)))

    def first(self, count: int) -> Clip:
        """Return the first frames, or all if there are fewer, at the system's size."""
        return np.stack(list(islice(map(self.way.inward, self.images()), count)))


def predict(arguments: list[str]) -> int:
    """Run ``kinema predict`` for a system that completes clips."""
    options = parse(Continue, arguments, "predict")
    trained, asked = _opened(options, 3 if options.loop else 2)
    window = trained.metadata.clip.frames
    if options.past is not None and options.past >= window:
        raise ConfigError(f"--past {options.past} leaves nothing new of {window} frames; take 1 to {window - 1}")
    files = media_files(options.files)
    output = options.output([file.stem for file in files], trained, _doing(options), resume=True)
    queue = Queue(files, output)
    given = queue.each(lambda _, file: _footage(file, options, trained, output))
    _say_sizes(trained, given.values())

    def make(number: int, file: Path) -> int:
        footage = given[number]
        before, after = _known_ends(file, footage, options, window)
        new = options.frames or max(1, window - len(before) - len(after))
        more = 0 if output.streams else max(0, (footage.info.frames or 1) - len(before) - len(after))
        joined = _join(before, new, after, footage, trained, output, more)
        made, _ = _completed(*joined, trained, asked, options.seed, number, options.past or window // 2, options.backward)
        fresh = map(footage.way.outward, made[len(before) : len(before) + new])
        frames = chain(fresh, footage.cut()) if options.backward else chain(footage.cut(), fresh)
        sound = None if options.backward or options.loop else footage.info.path
        _write(output, frames, footage, options, trained, sound, of_part=True)
        return new

    made = queue.each(make)
    return queue.finish(f"{sum(made.values())} new frames for {queue.words}")


def interpolate(arguments: list[str]) -> int:
    """Run ``kinema interpolate`` between images or clips."""
    options = parse(Between, arguments, "interpolate")
    trained, asked = _opened(options, 3)
    window = trained.metadata.clip.frames
    first, second = options.files
    output = options.output([f"{first.stem}-{second.stem}"], trained, f"between {first.name} and {second.name}")
    begin, end = (_footage(file, options, trained, output) for file in options.files)
    _say_sizes(trained, [begin, end])
    if (begin.info.width, begin.info.height) != (end.info.width, end.info.height):
        raise DataError(
            f"{first} is {begin.info.width}x{begin.info.height} and {second} {end.info.width}x{end.info.height}; "
            "give two of one size"
        )
    new = options.frames or max(1, window - 2)
    shown = options.past or _side(window, new)
    before, after = begin.last(shown), end.first(shown)
    for file, part in ((first, before), (second, after)):
        _refuse_short(file, part, options.past)
    joined = _join(before, new, after, begin, trained, output)
    made, _ = _completed(*joined, trained, asked, options.seed, 0, window // 2, False)
    fresh = map(begin.way.outward, made[len(before) : len(before) + new])
    frames = chain(deque(begin.cut(), 1), fresh, islice(end.cut(), 1))
    rates = [float(footage.info.fps) for footage in (begin, end) if footage.info.fps]
    if len(set(rates)) > 1:
        print(
            f"note: {first} has {rates[0]:g} frames per second and {second} {rates[1]:g}; the result has those of {first.name}"
        )
    _write(output, frames, begin if begin.info.fps else end, options, trained, None, of_part=True)
    _finish(output, f"{new} frames between {first} and {second}")
    return 0


def inpaint(arguments: list[str]) -> int:
    """Run ``kinema inpaint``."""
    from kinema.data.mask_files import MaskSource, find_mask, open_mask
    from kinema.data.windows import windows

    options = parse(Inpaint, arguments, "inpaint")
    trained, asked = _opened(options)
    window = trained.metadata.clip.frames
    overlap = window // 2 if options.overlap is None else options.overlap
    windows(1, window, overlap)  # refuses an overlap that leaves nothing new, before any file is looked at
    files, masks, double = media_files(options.files), Path(options.mask), 2 if options.view == "side-by-side" else 1
    about = f"inpainted{f' {files[0].name}' if len(files) == 1 else ''}, hidden by {masks.name}"
    stills = [file.stem for file in files if _is_still(file)]
    output = options.output([file.stem for file in files], trained, about, stills=stills, resume=True)
    queue = Queue(files, output)

    def look(_: int, file: Path) -> tuple[Footage, MaskSource]:
        footage = _footage(file, options, trained, output, whole=True, across=double)
        source = str(find_mask(masks, file)) if masks.is_dir() else options.mask
        return footage, open_mask(source, footage.info.width, footage.info.height, invert=options.invert)

    given = queue.each(look)
    _say_sizes(trained, [footage for footage, _ in given.values()])

    def make(number: int, file: Path) -> int:
        footage, mask = given[number]
        small, known = _beside(file, footage, mask, trained, output, 2 * LOOKS if options.clean_plate else 0)
        made, remembered = _completed(small, known, trained, asked, options.seed, number, overlap, False)
        behind = _behind(footage, mask, remembered, small, known) if options.clean_plate else None
        frames = _put_in(footage, mask, made, behind, options.feather, double)
        _write(output, frames, footage, options, trained, file, of_part=False, across=double)
        return len(made)

    frames = sum(queue.each(make).values())
    of = files[0] if len(files) == 1 else queue.words
    return queue.finish(f"{frames} {'frame' if frames == 1 else 'frames'} of {of}")


def _is_still(file: Path) -> bool:
    """Tell an image from a clip; what cannot be read is named when its turn comes."""
    from kinema.data.media import IMAGE_SUFFIXES, probe

    try:
        return file.suffix.lower() in IMAGE_SUFFIXES and probe(file).fps is None
    except MediaError:
        return False


def _beside(
    file: Path, footage: Footage, mask: "MaskSource", trained: "Trained", output: "Output", more: int
) -> tuple[Clip, "Known"]:
    """Return a clip at the system's size, and what of it is known; `more` frames in full size are held later."""
    from kinema.data.mask_files import beside_mask

    way = footage.way
    frames = footage.info.frames or 1
    _refuse_long(frames, footage, trained, output, min(more, 2 * frames))
    small: list[Picture] = []
    known: list[np.ndarray] = []
    for image, there in beside_mask(footage.images(), file, mask):
        if (~there).sum() > (~way.cut(there)).sum():
            raise DataError(f"{mask.name} hides what --fit crop cuts off of {file}; use --fit letterbox")
        small.append(way.inward(image))
        known.append(way.known_inward(there))
    given = np.stack(known)
    if given.all():
        is_file, size = bool(Path(mask.name).suffix), f"{footage.info.width}x{footage.info.height}"
        why = "white is what is filled in (--invert: the rest)" if is_file else f"its frames are {size}"
        raise DataError(f"{mask.name} hides nothing of {file}; {why}")
    return np.stack(small), given


@dataclass(frozen=True)
class Behind:
    """What other frames show of what is hidden.

    Attributes:
        plate: in full size.
        agrees: where it is to be taken, at the system's size.
    """

    plate: "CleanPlate"
    agrees: Bool[np.ndarray, "T H W"]

    def over(self, made: Picture, number: int, way: "Fitting") -> Picture:
        """Return what was made of a frame, in full size, with the plate where both agree."""
        share = way.outward(self.agrees[number, ..., None].repeat(3, axis=2) * np.uint8(255)) / np.float32(255)
        share *= way.cut(self.plate.sure)[..., None]
        return (share * way.cut(self.plate.picture) + (1 - share) * made).round().astype(np.uint8)


def _behind(footage: Footage, mask: "MaskSource", made: Clip, clip: Clip, known: "Known") -> Behind | None:
    """Look at some frames of a clip in full size for what is hidden in others; None where they do not show it.

    Args:
        footage: in full size.
        mask: what is hidden.
        made: at the system's size, with what is known as the system remembers it.
        clip: as it was shown to the system.
        known: what of it is known.
    """
    from kinema.data.clean_plate import CleanPlate, agreeing, clean_plate, grown, may_help
    from kinema.data.mask_files import beside_mask

    if not may_help(known):
        return None
    way, path = footage.way, footage.info.path
    wanted = set(np.linspace(0, len(made) - 1, min(LOOKS, len(made))).round().astype(int).tolist())
    hidden = np.zeros((footage.info.height, footage.info.width), np.bool_)
    looks: list[tuple[Picture, np.ndarray]] = []
    for number, (image, there) in enumerate(beside_mask(footage.images(), path, mask)):
        hidden |= ~there
        if number in wanted:
            looks.append((image, there))
    images, seen = (np.stack(side) for side in zip(*looks, strict=True))
    # A pixel of the system shows as many of the footage, and parts of two more.
    reach = 1 + max(-(-way.part[2] // way.place[2]), -(-way.part[3] // way.place[3]))
    plate = clean_plate(images, seen, grown(hidden, reach))
    agrees = agreeing(made, clip, known, CleanPlate(way.inward(plate.picture), way.known_inward(plate.sure)))
    share = agrees[~known].mean()
    if share == 0:
        return None
    print(f"{path}: {share:.0%} of what is hidden is taken from frames that show it (--no-clean-plate: nothing)")
    return Behind(plate, agrees)


def _put_in(
    footage: Footage, mask: "MaskSource", made: Clip, behind: Behind | None, feather: float, double: int
) -> Iterator[Picture]:
    """Yield the frames in full size with what was made where nothing is known; doubled beside what was given."""
    from kinema.data.mask_files import beside_mask, feathered

    way = footage.way
    left, top, width, height = way.part
    frames = zip(beside_mask(footage.images(), footage.info.path, mask), made, strict=True)
    for number, ((image, there), filled) in enumerate(frames):
        whole, large = image.copy(), way.outward(filled)
        large = behind.over(large, number, way) if behind else large
        part = feathered(way.cut(image), large, way.cut(there), feather)
        whole[top : top + height, left : left + width] = part
        if double == 2:
            whole = np.concatenate([np.where(there[..., None], image, np.uint8(GREY)), whole], axis=1)
        yield whole


# --- Before anything is made --------------------------------------------------------------------------------------------------


def _opened(options: Completed, least: int = 1) -> tuple["Trained", Steered]:
    """Open a system whose windows have `least` frames."""
    from kinema.cli.trained import Trained

    trained = Trained(options.run, "inpaint", options.device)
    if (window := trained.metadata.clip.frames) < least:
        raise CheckpointError(f"{trained.name} was trained on clips of {window} frame; at least {least} are needed")
    return trained, steered(options, trained)


def _doing(options: Continue) -> str:
    if options.loop:
        return "made to loop"
    return "what came before" if options.backward else "continued"


def _footage(
    file: Path, options: Completed, trained: "Trained", output: "Output", *, whole: bool = False, across: int = 1
) -> Footage:
    """Look at a file, and say in one line how the system sees it."""
    from kinema.data.fitting import fitting, working_size
    from kinema.data.media import probe

    info, clip = probe(file), trained.metadata.clip
    working = working_size((info.width, info.height), clip, trained.system.footprint)
    way = fitting((info.width, info.height), working, options.fit)
    width, height = (info.width, info.height) if whole else way.part[2:]
    output.refuse_size(across * width, height)
    fitting_batch(trained, ClipShape(clip.frames, working[1], working[0]), 1)
    rate = float(info.fps) if info.fps else None
    slower = f"; at {rate:g} frames per second, learnt at {trained.fps:g}" if rate and abs(rate / trained.fps - 1) > 0.1 else ""
    print(f"{file}: {way.describe()}{slower}")
    return Footage(info, way)


def _say_sizes(trained: "Trained", given: Iterable[Footage]) -> None:
    """Say once of every size at which the system works that it did not learn from it."""
    for wide, tall in dict.fromkeys(footage.way.working for footage in given):
        say_untrained(trained, ClipShape(trained.metadata.clip.frames, tall, wide))


def _known_ends(file: Path, footage: Footage, options: Continue, window: int) -> tuple[Clip, Clip]:
    """Return the frames before and after the new ones."""
    nothing = np.empty((0, *reversed(footage.way.working), 3), np.uint8)
    if options.loop:
        shown = options.past or _side(window, options.frames or window // 2)
        before, after = footage.last(shown), footage.first(shown)
    else:
        shown = options.past or max(1, window // 2)
        before, after = (nothing, footage.first(shown)) if options.backward else (footage.last(shown), nothing)
    _refuse_short(file, before if len(before) else after, options.past)
    return before, after


def _refuse_short(file: Path, found: Clip, past: int | None) -> None:
    if past is not None and 1 < len(found) < past:
        raise DataError(f"{file} has {len(found)} frames; --past is {past}")


def _side(window: int, new: int) -> int:
    """Return how many frames are shown at each end of what lies between."""
    return min(window // 2, (window - new) // 2) if new + 2 <= window else max(1, window // 4)


def _refuse_long(frames: int, footage: Footage, trained: "Trained", output: "Output", more: int = 0) -> None:
    """Refuse more frames than there is memory for, before anything is computed.

    Args:
        frames: that the system sees or makes.
        footage: what is completed.
        trained: the system.
        output: where they go.
        more: frames of the footage that are held in full size beside them.

    Raises:
        ConfigError: naming how many there is memory for.
    """
    from kinema.training.memory import free_memory

    free = free_memory("cpu")
    if free is None:
        return
    wide, tall = footage.way.working
    whole = 2 * 3 * footage.info.width * footage.info.height
    frame = COPIES * 3 * wide * tall + (0 if output.streams else whole)
    window = ClipShape(trained.metadata.clip.frames, tall, wide)
    held = more * whole + (sampling_bytes(trained, window) if trained.device.type == "cpu" else 0)
    if held + frames * frame > free:
        most = max(0, (free - held) // frame)
        hint = "" if output.streams else "; .mp4 and .webm are written as they are made and need less"
        raise ConfigError(
            f"{frames} frames need {amount(held + frames * frame)} of memory and {amount(free)} are free; the most that "
            f"fits is {most} frames{hint}"
        )


# --- Making -------------------------------------------------------------------------------------------------------------------


def _join(
    before: Clip, new: int, after: Clip, footage: Footage, trained: "Trained", output: "Output", more: int = 0
) -> tuple[Clip, "Known"]:
    """Return known frames around unknown ones, and what is known; `more` frames in full size come into the result."""
    from kinema.data.masks import ends

    wide, tall = footage.way.working
    _refuse_long(len(before) + new + len(after), footage, trained, output, more)
    shape = ClipShape(len(before) + new + len(after), tall, wide)
    return np.concatenate([before, np.zeros((new, tall, wide, 3), np.uint8), after]), ends(shape, len(before), len(after))


def _completed(
    video: Clip,
    known: "Known",
    trained: "Trained",
    asked: Steered,
    seed: int,
    number: int,
    overlap: int,
    backward: bool,
) -> tuple[Clip, Clip]:
    """Fill in what is unknown of the clip with this number, window by window.

    Returns:
        The clip with known pixels as they were, and as the system remembers them in frames that hide something.
    """
    from kinema.core.seeds import numpy_generator
    from kinema.data.windows import complete, windows

    window = trained.metadata.clip.frames
    spans = windows(len(video), window, overlap, backward=backward)
    labels, captions = asked.labels_of([number]), asked.captions_of([number])
    remembered = video.copy()
    with Progress() as progress:

        def fill(clip: Clip, given: "Known", turn: int) -> Clip:
            # The same noise in every window would make each repeat the last.
            draw = int(numpy_generator(seed + number, turn).integers(2**31)) if turn else seed + number
            made = trained.inpaint(clip[None], given[None], [draw], labels, captions, asked.sampling, paste=False)[0]
            span = spans[turn]
            remembered[span.start : span.stop] = made[len(made) - len(span) :] if backward else made[: len(span)]
            progress.show("filling in", turn + 1, len(spans))
            return made

        return complete(video, known, spans, window, fill, backward=backward), remembered


def _write(
    output: "Output",
    frames: Iterable[Picture],
    footage: Footage,
    options: Completed,
    trained: "Trained",
    sound: Path | None,
    *,
    of_part: bool,
    across: int = 1,
) -> None:
    """Write frames at the rate of the footage; an image has the rate of the clips that the system was trained on."""
    from kinema.data.media import ANIMATION_SUFFIXES, IMAGE_SUFFIXES

    rate = Fraction(options.fps or footage.info.fps or trained.fps).limit_denominator(1001)
    width, height = footage.way.part[2:] if of_part else (footage.info.width, footage.info.height)
    if options.fps is not None or footage.info.path.suffix.lower() in ANIMATION_SUFFIXES | IMAGE_SUFFIXES:
        sound = None
    name, heard = output.name, output.stream(frames, across * width, height, rate, sound)
    size = f"{across * width}x{height} at {float(rate):g} frames per second"
    print(f"{name}: {size}" + (f", {heard}" if "sound copied" in heard or "encoded anew" in heard else ""))


def _finish(output: "Output", what: str) -> None:
    print(f"{what}: {output.close()}")
