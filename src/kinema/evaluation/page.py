"""Self-contained pages: templates, and pictures that move within the one file."""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kinema.data.encode import beside, write_video
from kinema.data.tags import generated_tags
from kinema.evaluation.clips import Clip
from kinema.training.sheets import grid

JSON_NAME, HTML_NAME = "report.json", "report.html"


@cache
def template(name: str) -> Template:
    """Return a template of this package; names in it are strict and text is escaped."""
    loader = PackageLoader("kinema.evaluation", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(name)


def moving(clips: Sequence[Clip], columns: int, fps: float = 1.0, *, made: str | None) -> str:
    """Return a grid of clips as a data URI: moving, or a picture where they have one frame.

    Args:
        clips: of one shape.
        columns: clips in a row.
        fps: frames per second.
        made: what those are that a model made, which the picture says of itself; None where it shows real clips alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clips.webp"
        tags = generated_tags(made) if made else None
        write_video(file, grid([np.asarray(clip) for clip in clips], columns), fps, metadata=tags)
        return embedded(file)


def made_of(judged: Mapping[str, Any]) -> str | None:
    """Return what `moving` says of clips that were judged: those of a run were made, and files say it themselves."""
    return f"clips of {judged['name']}" if "checkpoint sha256" in judged or judged.get("synthetic") else None


def embedded(file: Path) -> str:
    """Return a WebP file as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"


def write_both(folder: Path, page: str, report: Mapping[str, Any]) -> None:
    """Write a report for people and for programs; the folder is made where missing, the JSON comes last.

    Raises:
        MediaError: when a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with beside(folder / HTML_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    with beside(folder / JSON_NAME) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
