"""``kinema demo``: the whole way from nothing to a gallery of generated clips, on data that kinema draws itself."""

import os
import shlex
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from kinema.cli import dispatch
from kinema.cli.arguments import parse
from kinema.core.config import Config

GALLERY_NAME = "gallery.html"
SYSTEM = "vgan"
ZOO_NAME = "vgan-performers"
FPS = 8.0
"""Frames per second of the data: half the usual rate and half the frames show the same movement in half the time."""
HURRY = {"learning-rate": 4e-4, "discriminator-learning-rate": 4e-4, "ema-samples": 2000}
"""Settings for the few minutes of a demo: twice the step size, a short average, and no augmentation."""
CURVES = ("discriminator/real", "generator/adversarial")


@dataclass(frozen=True)
class Demo(Config):
    """Make data, train, generate and open a gallery: everything but your own footage, without any download."""

    out: Path = Path("demo")
    """Folder for the data, the run and the gallery."""
    minutes: float = 8.5
    """Minutes of training."""
    clips: int = 2000
    """Clips of procedural people to train on."""
    variety: Literal["low", "medium", "high"] = "low"
    """How many people, stages and clothes there are; more variety wants more training."""
    preset: str = "laptop"
    """Preset of the system."""
    shown: int = 12
    """Generated clips in the gallery."""
    seed: int = 0
    """Of the data and the training."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Train anew where the folder holds a demo already; data of the same settings are used again."""
    browser: bool = True
    """Whether to open the gallery where there is a browser."""

    def check(self) -> None:
        """Refuse an empty demo."""
        self.require(self.minutes > 0, "minutes", "more than 0")
        self.require(self.clips >= 2, "clips", "at least 2")
        self.require(self.shown >= 1, "shown", "at least 1")
        self.require(self.seed >= 0, "seed", "0 or more")


def run(arguments: list[str]) -> int:
    """Run ``kinema demo``; returns the exit status of the first step that did not end well."""
    options = parse(Demo, arguments, "demo")
    tour = Tour()
    for title, words in steps(options):
        with tour.step(title, words):
            status = dispatch(words)
        if status:
            return status
    gallery = write_gallery(options, tour)
    print(f"\ngallery: {gallery.resolve()}")
    if options.browser and has_display():
        webbrowser.open(gallery.resolve().as_uri())
    return 0


def steps(options: Demo) -> Iterator[tuple[str, list[str]]]:
    """Yield title and command line of every step."""
    from kinema.core.errors import ConfigError, accepted
    from kinema.systems import SYSTEMS
    from kinema.training.checkpoint import zoo

    presets = SYSTEMS[SYSTEM].presets
    if options.preset not in presets:
        raise ConfigError(f"{SYSTEM} has no preset {options.preset!r}; {accepted(options.preset, presets)}")
    config = presets[options.preset].config
    data, trained = options.out / "data", str(options.out / "run")
    again = ["--overwrite"] if options.overwrite else []
    wanted = {"clips": options.clips, "variety": options.variety, "seed": options.seed}
    wanted |= {"frames": config.frames // 2, "size": config.size, "fps": FPS}
    if not holds(data, wanted):
        settings = [word for name, value in wanted.items() for word in (f"--{name}", str(value))]
        yield "Draw people who move", ["prepare", "performers", *settings, "--out", str(data), *again]
    budget = ["--preset", options.preset, "--minutes", f"{options.minutes:g}", "--seed", str(options.seed)]
    hurry = HURRY | {"frames": config.frames // 2}
    budget += [word for name, value in hurry.items() for word in (f"--{name}", f"{value:g}")] + ["--augment"]
    yield "Train", ["train", SYSTEM, str(data), "--out", trained, *budget, "--device", options.device, *again]
    pictures = ["--format", "webp", "--device", options.device, "--overwrite"]
    shown = ["--count", str(options.shown)]
    yield "Generate", ["generate", trained, *shown, "--out", str(options.out / "generated"), *pictures]
    streams = str(options.out / "streams.webp")
    yield "Look inside", ["generate", trained, "--streams", "--count", "4", "--out", streams, *pictures]
    if ZOO_NAME in zoo():
        longer = str(options.out / "longer")
        yield "Compare with longer training", ["generate", f"zoo:{ZOO_NAME}", *shown, "--out", longer, *pictures]


def holds(data: Path, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a finished dataset was made with the wanted settings."""
    from kinema.data.dataset import INFO_NAME, read_info

    return (data / INFO_NAME).is_file() and wanted.items() <= read_info(data).settings.items()


class Tour:
    """Says what is being done, and remembers commands and times."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    @contextmanager
    def step(self, title: str, words: Sequence[str]) -> Iterator[None]:
        """Announce a step and take its time."""
        command = shlex.join(["kinema", *words])
        print(f"\n== {title}\n$ {command}", flush=True)
        began = time.monotonic()
        yield
        self.commands.append({"title": title, "command": command, "seconds": round(time.monotonic() - began)})


def write_gallery(options: Demo, tour: Tour) -> Path:
    """Write real clips and the page that shows everything; returns its path."""
    from jinja2 import Environment, StrictUndefined

    from kinema.data.encode import beside

    template = resources.files("kinema.cli").joinpath("gallery.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    page = environment.from_string(template)
    gallery = options.out / GALLERY_NAME
    with beside(gallery) as temporary:
        temporary.write_text(page.render(**describe(options), commands=tour.commands), encoding="utf-8")
    return gallery


def describe(options: Demo) -> Mapping[str, Any]:
    """Collect what the gallery says; links are relative to it."""
    from kinema.training.checkpoint import read_metadata
    from kinema.training.report import spark
    from kinema.training.runlog import read_metrics

    metadata = read_metadata(options.out / "run")
    lines = [line for line in read_metrics(options.out / "run") if all(name in line for name in CURVES)]
    curves = [(name.replace("/", ", "), spark([line[name] for line in lines], 300, 80)) for name in CURVES]

    def pictures(folder: str) -> list[str]:
        return sorted(path.relative_to(options.out).as_posix() for path in (options.out / folder).glob("*.webp"))

    return {
        "generated": pictures("generated")[: options.shown],
        "real": write_real(options),
        "longer": pictures("longer"),
        "streams": "streams.webp",
        "curves": curves if len(lines) > 1 else [],
        "report": "run/index.html",
        "preset": options.preset,
        "clip": metadata.clip,
        "steps": metadata.steps,
        "minutes": options.minutes,
        "clips": options.clips,
        "machine": metadata.provenance.get("machine", "unknown"),
        "versions": f"kinema {metadata.provenance.get('kinema')}, torch {metadata.provenance.get('torch')}",
    }


def write_real(options: Demo) -> list[str]:
    """Write as many clips of the data as are generated, spread over the set; returns their links."""
    from kinema.data.dataset import Dataset
    from kinema.data.encode import write_video

    dataset = Dataset(options.out / "data")
    folder = options.out / "real"
    folder.mkdir(exist_ok=True)
    links: list[str] = []
    for number in range(min(options.shown, len(dataset))):
        path = folder / f"real-{number:02d}.webp"
        index = number * len(dataset) // min(options.shown, len(dataset))
        write_video(path, dataset.video(index), dataset.info.fps, metadata={"comment": "drawn by kinema"})
        links.append(f"real/{path.name}")
    return links


def has_display() -> bool:
    """Tell whether a window can open; a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
