"""Self-contained pages: templates, and pictures that move within the one file."""

import base64
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kinema.data.encode import write_video
from kinema.evaluation.clips import Clip
from kinema.training.sheets import grid


@cache
def template(name: str) -> Template:
    """Return a template of this package; names in it are strict and text is escaped."""
    loader = PackageLoader("kinema.evaluation", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(name)


def moving(clips: Sequence[Clip], columns: int, fps: float = 1.0) -> str:
    """Return a grid of clips as a data URI: moving, or a picture where they have one frame."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clips.webp"
        write_video(file, grid([np.asarray(clip) for clip in clips], columns), fps)
        return embedded(file)


def embedded(file: Path) -> str:
    """Return a WebP file as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"
