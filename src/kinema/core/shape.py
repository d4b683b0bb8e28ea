"""Shape of a clip; apart from `kinema.core.types` so that preparing footage imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipShape:
    """Frames, height and width of a clip, written ``32x64x64``."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"
