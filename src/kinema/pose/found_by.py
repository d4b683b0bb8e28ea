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


def noted(detector: PoseDetector) -> dict[str, Any]:
    """Return what poses keep in `Poses.extra` of the detector that finds them."""
    return {SETTINGS: {"detector": detector.name, "detector_version": detector.version}}
