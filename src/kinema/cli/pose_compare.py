"""Action ``pose compare``: how near poses are to the true ones, all together and joint by joint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kinema.cli.arguments import parse
from kinema.cli.pose_convert import describe, parse_size, refuse_other_footage
from kinema.cli.terminal import print_table
from kinema.core.config import Config
from kinema.core.errors import DataError

if TYPE_CHECKING:
    from kinema.evaluation.posewise import Nearness
    from kinema.pose.sequence import Poses


@dataclass(frozen=True, kw_only=True)
class Compare(Config):
    """Measure poses of one person against the true ones of the same frames, such as found ones against those drawn."""

    poses: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POSES", help_behavior_hint="")]
    """An .npz of kinema, or a folder of OpenPose's *_keypoints.json."""
    truth: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TRUTH", help_behavior_hint="")]
    """The true ones: as many frames of the same size. Joints that the layout of POSES does not give are left out."""
    person: Annotated[str, tyro.conf.arg(metavar="N|largest|X,Y")] = "largest"
    """Whom to take of several people: a number, the largest, or who is nearest to a pixel of the first frame with anybody."""
    reach: float = 0.2
    """A joint is right within this share of the longer edge of the box around the true joints of its frame (PCK)."""
    from_size: Annotated[str | None, tyro.conf.arg(metavar="WxH", help_behavior_hint="")] = None
    """Size of the footage, where OpenPose's files have no poses.json beside them."""
    from_fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Rate of that footage."""

    def check(self) -> None:
        """Refuse settings out of range."""
        self.require(0 < self.reach <= 1, "reach", "above 0 and at most 1")
        self.require(self.person != "all", "person", "one person: a number, largest, or a pixel")
        self.require(self.from_fps is None or 0 < self.from_fps <= 1000, "from_fps", "above 0 and at most 1000")
        parse_size(self.from_size)


def run(arguments: list[str]) -> int:
    """Run ``kinema pose compare``."""
    from kinema.evaluation.posewise import compare_poses
    from kinema.pose.skeleton import converter

    options = parse(Compare, arguments, "pose compare")
    made, truth = (_person(path, options) for path in (options.poses, options.truth))
    if (len(made), made.width, made.height) != (len(truth), truth.width, truth.height):
        raise DataError(
            f"{options.poses} has {len(made)} frames of {made.width}x{made.height} and {options.truth} has {len(truth)} of "
            f"{truth.width}x{truth.height}; make them alike with kinema pose convert --size and --fps"
        )
    conversion = converter(made.skeleton, truth.skeleton)
    if conversion.missing:
        print(f"left out, for {made.skeleton.name} has none: {', '.join(conversion.missing)}")
    asked = truth.points[:, 0].copy()
    asked[:, [truth.skeleton.index(joint) for joint in conversion.missing], 2] = 0
    begins = sorted({*made.begins, *truth.begins})
    found = compare_poses(conversion(made.points[:, 0]), asked, truth.skeleton, options.reach, begins)
    columns = ("joint", "apart, pixels", "missing", f"right (PCK@{options.reach:g})")
    lines = [(joint, *_cells(one)) for joint, one in found.joints.items()]
    print_table(f"{options.poses.name} against {options.truth.name}", columns, [*lines, ("all", *_cells(found.all))])
    print(f"AKD {found.coordinate:.2f} pixels: mean difference of a coordinate of joints that both have")
    print(f"MKR {found.all.missing:.1%}: share of true joints that are missing")
    if found.steps is not None:
        print(
            f"steps: a joint moves {found.steps.made:.2f} pixels per frame, in truth {found.steps.truth:.2f}; "
            f"the moves are {found.steps.apart:.2f} apart"
        )
    if found.similarity is not None:
        print(f"OKS {found.similarity:.3f}: mean over frames, COCO's joints, with the box around them as the area")
    return 0


def _person(path: Path, options: Compare) -> "Poses":
    """Read poses and take one person, saying whom."""
    from kinema.pose.files import read_poses
    from kinema.pose.people import take

    width, height = parse_size(options.from_size)
    poses = read_poses(path, width=width, height=height, fps=options.from_fps)
    refuse_other_footage(path, poses, options.from_size, options.from_fps)
    poses, notes = take(poses, options.person)
    for line in (describe(poses), *notes):
        print(f"{path}: {line}")
    return poses


def _cells(found: "Nearness") -> tuple[str, str, str]:
    return "-" if found.distance is None else f"{found.distance:.2f}", f"{found.missing:.1%}", f"{found.right:.1%}"
