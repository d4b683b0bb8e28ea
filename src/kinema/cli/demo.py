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
from typing import TYPE_CHECKING, Any, Literal

from kinema.cli import dispatch
from kinema.cli.arguments import parse
from kinema.core.config import Config

if TYPE_CHECKING:
    from kinema.data.dataset import Dataset

GALLERY_NAME = "gallery.html"
PEOPLE = "people of kinema prepare performers"  # what its real clips show, as they say
ZOO = "zoo:vgan-performers"
FPS = 8.0
"""Frames per second of the data: half the usual rate and half the frames show the same movement in half the time."""
SIDE = 48
"""Pixels of the transformer's clips: more than its preset has, as many as a few minutes are enough for."""
HURRY: dict[str, Any] = {"learning-rate": 4e-4, "discriminator-learning-rate": 4e-4, "ema-samples": 2000}
"""Settings of VGAN for the few minutes of a demo: twice the step size, a short average, and no augmentation."""
COMPLETED = 6
"""Held-out clips that are continued, and that get a hole filled."""


@dataclass(frozen=True)
class Demo(Config):
    """Make data, train, generate and open a gallery: everything but your own footage, without any download."""

    out: Path = Path("demo")
    """Folder for the data, the run and the gallery."""
    minutes: float = 8.0
    """Minutes of training."""
    system: Literal["latent-video-dit", "vgan"] = "latent-video-dit"
    """What is trained: a diffusion transformer that is asked by class, continues and fills in, or the two-stream VGAN."""
    clips: int = 2000
    """Clips of procedural people to train on."""
    variety: Literal["low", "medium", "high"] = "low"
    """How many people, stages and clothes there are; more variety wants more training."""
    preset: str = "laptop"
    """Preset of the system."""
    shown: int = 16
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
        self.require(self.clips >= 20, "clips", "at least 20, of which one is held out")
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
    """Yield title and command line of every step; files that a step is given are written just before it."""
    from kinema.core.errors import ConfigError, accepted
    from kinema.systems import SYSTEMS

    presets = SYSTEMS[options.system].presets
    if options.preset not in presets:
        raise ConfigError(f"{options.system} has no preset {options.preset!r}; {accepted(options.preset, presets)}")
    settings, frames, size = recipe(options, presets[options.preset].config)
    out, trained = options.out, str(options.out / "run")
    again = ["--overwrite"] if options.overwrite else []
    wanted = {"clips": options.clips, "variety": options.variety, "seed": options.seed}
    wanted |= {"frames": frames, "size": size, "fps": FPS}
    if not holds(out / "data", wanted):
        yield "Draw people who move", ["prepare", "performers", *words(wanted), "--out", str(out / "data"), *again]
    budget = {"preset": options.preset, "minutes": f"{options.minutes:g}", "seed": options.seed, "device": options.device}
    yield "Train", ["train", options.system, str(out / "data"), "--out", trained, *words(budget), *settings, *again]
    pictures = ["--format", "webp", "--device", options.device, "--overwrite"]
    generated = ["generate", trained, "--count", str(options.shown), "--out", str(out / "generated")]
    if options.system == "vgan":
        yield "Generate", [*generated, *pictures]
        yield "Look inside", ["generate", trained, "--streams", "--count", "4", "--out", str(out / "streams.webp"), *pictures]
        longer = ["generate", ZOO, "--count", str(options.shown), "--out", str(out / "longer")]
        yield "Compare with longer training", [*longer, *pictures]
        return
    asked = [word for label in label_names(options) for word in ("--label", label)]
    yield "Generate by class", [*generated, *asked, "--guidance", "2", *pictures]
    write_held_out(options)
    yield "Continue pictures", ["predict", trained, str(out / "pictures"), "--out", str(out / "continued"), *pictures]
    box = f"{size // 4},{size // 4},{size // 2},{size // 2}"
    hole = ["inpaint", trained, str(out / "clips"), "--mask", box, "--view", "side-by-side", "--out", str(out / "filled")]
    yield "Fill holes", [*hole, *pictures]
    yield (
        "Look inside another system",
        ["generate", ZOO, "--streams", "--count", "4", "--out", str(out / "streams.webp"), *pictures],
    )


def recipe(options: Demo, config: Any) -> tuple[list[str], int, int]:
    """Return settings that suit a few minutes, and frames and side in pixels of the clips."""
    if options.system == "vgan":
        frames = config.frames // 2
        return [*words(HURRY | {"frames": frames}), "--augment"], frames, config.size
    size = SIDE if options.preset == "laptop" else config.height
    return words({"height": size, "width": size}), config.frames, size


def words(settings: Mapping[str, Any]) -> list[str]:
    """Return options as they are typed."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def label_names(options: Demo) -> tuple[str, ...]:
    """Return the classes of the demo's data."""
    from kinema.data.dataset import read_info

    return tuple(read_info(options.out / "data").labels)


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
    curves = ("discriminator/real", "generator/adversarial") if options.system == "vgan" else ("transformer/flow",)
    lines = [line for line in read_metrics(options.out / "run") if all(name in line for name in curves)]
    names = label_names(options)

    def pictures(folder: str) -> list[str]:
        return sorted(path.relative_to(options.out).as_posix() for path in (options.out / folder).glob("*.webp"))

    return {
        "system": options.system,
        "generated": pictures("generated")[: options.shown],
        "names": [names[number % len(names)].replace("_", " ") for number in range(options.shown)]
        if options.system != "vgan"
        else [],
        "continued": pictures("continued"),
        "filled": pictures("filled"),
        "real": write_real(options),
        "longer": pictures("longer")[: options.shown],
        "streams": "streams.webp",
        "curves": [
            (name.replace("/", ", "), spark([line[name] for line in lines], 300, 80)) for name in curves if len(lines) > 1
        ],
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
    """Write clips of the data, spread over the set; returns their links."""
    from kinema.data.dataset import Dataset

    dataset = Dataset(options.out / "data", "train")
    return [f"real/{path.name}" for path in write_clips(dataset, spread(dataset), options.out / "real", ".webp")]


def write_held_out(options: Demo) -> None:
    """Write clips that were not trained on, and the first picture of each."""
    from kinema.data.dataset import Dataset
    from kinema.data.encode import write_image
    from kinema.data.tags import drawn_tags

    dataset = Dataset(options.out / "data", "test")
    chosen = spread(dataset)
    write_clips(dataset, chosen, options.out / "clips", ".mp4")
    folder = options.out / "pictures"
    folder.mkdir(exist_ok=True)
    for number, index in enumerate(chosen):
        write_image(folder / f"{number:02d}.png", dataset.video(index)[0], metadata=drawn_tags(PEOPLE))


def spread(dataset: "Dataset") -> list[int]:
    """Return indices of a few clips from all over a dataset."""
    from kinema.training.health import evenly_spread

    return evenly_spread(len(dataset), COMPLETED)


def write_clips(dataset: "Dataset", chosen: Sequence[int], folder: Path, suffix: str) -> list[Path]:
    """Write clips of a dataset as files; returns their paths."""
    from kinema.data.encode import write_video
    from kinema.data.tags import drawn_tags

    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02d}{suffix}" for number in range(len(chosen))]
    for path, index in zip(paths, chosen, strict=True):
        write_video(path, dataset.video(index), dataset.info.fps, metadata=drawn_tags(PEOPLE))
    return paths


def has_display() -> bool:
    """Tell whether a window can open; a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
