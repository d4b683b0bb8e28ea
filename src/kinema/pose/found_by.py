"""What found poses: two detectors put the same joint in different places, and what was learnt with one is driven best by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.pose.detect import PoseDetector
from kinema.pose.sequence import Poses

SETTINGS = "settings"
"""Key in `Poses.extra`: how the poses were found, as ``kinema pose detect`` writes it."""
RECORDED = "pose_detector"
"""Key of what a checkpoint says of its dataset."""
SHOWN = 16  # characters of a version: those of MediaPipe are shorter, a file's is a SHA-256


@dataclass(frozen=True)
class FoundBy:
    """A detector and its version.

    Attributes:
        name: ``mediapipe``, or the name of an ONNX file.
        version: of MediaPipe, or the SHA-256 of the file; empty where nobody wrote it down.
    """

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version[:SHOWN]}".rstrip()

    def differs(self, other: "FoundBy") -> bool:
        """Tell whether another one may find other joints: a file is known by what is in it, whatever its name."""
        return self.version != other.version if self.version and other.version else self.name != other.name


def of_run(dataset: Mapping[str, Any]) -> FoundBy | None:
    """Return what a checkpoint says of its dataset; None where it says nothing: `of_prepared` knew none, or it is older."""
    found = dataset.get(RECORDED)
    return FoundBy(str(found.get("name", "")), str(found.get("version", ""))) if isinstance(found, dict) else None


def of_prepared(settings: Mapping[str, Any]) -> FoundBy | None:
    """Return what the settings of a prepared dataset say; None for clips without poses, given poses or procedural people."""
    name = settings.get("pose")
    if not isinstance(name, str) or not (name == "mediapipe" or name.lower().endswith(".onnx")):
        return None
    return FoundBy(Path(name).name, settings.get("pose_version") or "")


def of_poses(poses: Poses) -> FoundBy | None:
    """Return what poses say of themselves; None for those that kinema did not find, which do not."""
    said = (poses.extra or {}).get(SETTINGS)
    settings = said if isinstance(said, dict) else {}
    name = settings.get("detector")
    return FoundBy(Path(name).name, str(settings.get("detector_version") or "")) if isinstance(name, str) else None


def unlike(given: FoundBy | None, known: FoundBy | None, poses: str, run: str, *, looks_now: bool = False) -> str | None:
    """Say in a sentence that poses are another detector's than those of a run; None where both are alike, or one is not known.

    Args:
        given: what found the poses.
        known: what found those that the run learnt from.
        poses: as the sentence calls them.
        run: its name.
        looks_now: the poses are found while the command runs, so that its option decides.
    """
    if given is None or known is None or not given.differs(known):
        return None
    way = f"give --detector {known.name}" if looks_now else f"find them with kinema pose detect --detector {known.name}"
    return (
        f"{given} found {poses} and {known} those that {run} learnt from: each puts joints elsewhere, which may show; "
        f"{'have both found by one version' if given.name == known.name else way}"
    )


def noted(detector: PoseDetector) -> dict[str, Any]:
    """Return what poses keep in `Poses.extra` of the detector that finds them."""
    return {SETTINGS: {"detector": detector.name, "detector_version": detector.version}}
