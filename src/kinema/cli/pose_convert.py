"""Action ``pose convert``: choose people, change layout, fill gaps, smooth, resize, re-time and write poses."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kinema.cli.arguments import parse
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool

    from kinema.pose.sequence import Poses

EACH = "each"


@dataclass(frozen=True, kw_only=True)
class Convert(Config):
    """Read poses, change them and write them. What is not asked for is left as it is, but of several people one is taken."""

    poses: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POSES", help_behavior_hint="")]
    """An .npz of kinema, or a folder of OpenPose's *_keypoints.json."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE|FOLDER", help_behavior_hint="")]
    """FILE.npz, or a folder for OpenPose's files and poses.json, which holds size and rate. With --person each, FILE-0.npz,
    FILE-1.npz and so on, by the people's numbers."""
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Layout of the result: coco-17, coco-18, body-25, edn-23, blazepose-33 or penn-13."""
    person: Annotated[str, tyro.conf.arg(metavar="N|largest|X,Y|all|each")] = "largest"
    """Whom to take: a number, the largest, who is nearest to a pixel of the first frame with anybody, all into one file, or
    each into a file of their own."""
    outliers: bool = False
    """Drop points that jump away and come back, and people whom the detector turns upside down."""
    fill: int = 0
    """Longest gap, in frames, to lay a straight line across; 0: none."""
    smooth: Literal["none", "median", "savgol", "one-euro", "ema"] = "none"
    """Filter over time; savgol wants gaps filled, one-euro and ema use the past alone."""
    window: int = 7
    """Frames of the filters median and savgol; odd."""
    size: Annotated[str | None, tyro.conf.arg(metavar="WxH", help_behavior_hint="")] = None
    """Scale to frames of this size."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Re-time to this rate."""
    from_size: Annotated[str | None, tyro.conf.arg(metavar="WxH", help_behavior_hint="")] = None
    """Size of the footage that the poses were found in, where OpenPose's files have no poses.json beside them."""
    from_fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Rate of that footage."""
    overwrite: bool = False
    """Replace what exists."""

    def check(self) -> None:
        """Refuse settings out of range."""
        self.require(self.fill >= 0, "fill", "0 or more")
        self.require(self.window >= 1 and self.window % 2 == 1, "window", "odd and 1 or more")
        for name in ("fps", "from_fps"):
            self.require(getattr(self, name) is None or 0 < getattr(self, name) <= 1000, name, "above 0 and at most 1000")
        for name in ("size", "from_size"):
            parse_size(getattr(self, name))


def run(arguments: list[str]) -> int:
    """Run ``kinema pose convert``."""
    from kinema.pose.files import missing_frames, read_poses, write_poses
    from kinema.pose.people import frame_list, take

    options = parse(Convert, arguments, "pose convert")
    width, height = parse_size(options.from_size)
    poses = read_poses(options.poses, width=width, height=height, fps=options.from_fps)
    refuse_other_footage(options.poses, poses, options.from_size, options.from_fps)
    print(f"{options.poses}: {describe(poses)}")
    if options.poses.is_dir() and (first := (poses.extra or {}).get("first_frame", 0)) > 1:
        print(f"frame 0 is number {first}, the first that has a file")
    if options.poses.is_dir() and (gone := missing_frames(poses)):
        print(f"no file for {frame_list(gone)}, as files are numbered")
    if not poses.present.any():
        raise DataError(f"no person is in any of the {len(poses)} frames of {options.poses}; there is nothing to write")
    poses, notes = take(poses, "all" if options.person == EACH else options.person)
    for note in notes:
        print(note)
    results = _apart(options, poses) if options.person == EACH else {options.out: poses}
    for out, person in results.items():
        person = reshaped(filtered(person, options), options)
        write_poses(out, person, overwrite=options.overwrite)
        print(f"{out}: {describe(person)}")
    return 0


def refuse_other_footage(file: Path, poses: "Poses", from_size: str | None, from_fps: float | None) -> None:
    """Raise `ConfigError` where poses that name the footage they were found in are said to be of another."""
    width, height = parse_size(from_size)
    if (width or poses.width, height or poses.height, from_fps or poses.fps) != (poses.width, poses.height, poses.fps):
        raise ConfigError(
            f"{file} says itself that its frames are of {poses.width}x{poses.height} at {poses.fps:g} fps; leave out "
            "--from-size and --from-fps (--size and --fps of kinema pose convert change them)"
        )


def _apart(options: Convert, poses: "Poses") -> "dict[Path, Poses]":
    """Return where everybody's own poses go.

    Raises:
        DataError: there is no name to number, or one of the files exists.
    """
    if not options.out.name:
        raise DataError(f"--out {options.out} has no name that could be numbered; give FILE.npz or a folder")
    there = [(place, id_) for place, id_ in enumerate(poses.people) if poses.present[:, place].any()]
    ending = ".npz" if options.out.suffix.lower() == ".npz" else ""
    name = options.out.name.removesuffix(options.out.suffix) if ending else options.out.name
    places = {options.out.with_name(f"{name}-{id_}{ending}"): poses.person(place) for place, id_ in there}
    existing = next((out for out in places if out.exists()), None)
    if existing and not options.overwrite:
        raise DataError(f"{existing} exists; name another place, or ask to overwrite it")
    return places


def filtered(poses: "Poses", options: Convert) -> "Poses":
    """Drop outliers, fill gaps and smooth, and say how many points that were."""
    from kinema.pose.filters import SMOOTHERS, drop_flips, drop_outliers, fill_gaps, filled_points

    if options.outliers:
        before, poses = poses, drop_outliers(drop_flips(poses))
        there, stayed = _there(before), _there(poses)
        print(f"outliers: dropped {(there & ~stayed).sum()} of {there.sum()} points")
    if options.fill:
        before, poses = poses, fill_gaps(poses, options.fill)
        print(f"gaps: filled {filled_points(before, poses).sum()} of {(~_there(before)).sum()} missing points")
    return poses if options.smooth == "none" else SMOOTHERS[options.smooth](poses, options.window)


def _there(poses: "Poses") -> "Bool[np.ndarray, 'T P K']":
    """Return which points of body, face and hands were found."""
    return poses.joined[..., 2] > 0


def reshaped(poses: "Poses", options: Convert) -> "Poses":
    """Change layout, size and rate, and say which joints that loses."""
    from kinema.pose.filters import retimed
    from kinema.pose.skeleton import converter, find_skeleton, whole

    if options.skeleton:
        target = find_skeleton(options.skeleton)
        if lacking := poses.lacking(target):
            raise DataError(f"{options.poses} holds no {' and no '.join(lacking)}; give --skeleton {target.body.name}")
        target = target if target.parts else whole(target, poses.layout.parts)
        conversion = converter(poses.skeleton, target.body)
        dropped = (*conversion.dropped, *(part for part in poses.layout.parts if part not in target.parts))
        for what, joints in (("dropped", dropped), (f"missing in {poses.skeleton.name}", conversion.missing)):
            if joints:
                print(f"{what}: {', '.join(joints)}")
        poses = poses.converted(target)
    width, height = parse_size(options.size)
    if width and height:
        poses = poses.resized(width, height)
    return retimed(poses, options.fps) if options.fps else poses


def describe(poses: "Poses") -> str:
    """Say in a line what poses are."""
    parts = "".join(f", {name}" for name in ("face", "hands") if getattr(poses, name) is not None)
    people = "1 person" if poses.points.shape[1] == 1 else f"up to {poses.points.shape[1]} people"
    found = poses.present.mean() if poses.present.size else 0
    return (
        f"{len(poses)} frames of {poses.width}x{poses.height} at {poses.fps:g} fps, {people}, {poses.skeleton.name}{parts}, "
        f"{found:.1%} of the points found"
    )


def parse_size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    """Read ``640x480``.

    Raises:
        ConfigError: for anything else.
    """
    if text is None:
        return None, None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise ConfigError(f"a size of {text!r}; write width x height in pixels, such as 640x480")
    return int(match[1]), int(match[2])
