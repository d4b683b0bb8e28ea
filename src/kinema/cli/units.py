"""The verb units: what the units of a trained network look for."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from kinema.cli.arguments import parse
from kinema.cli.terminal import Progress, print_table
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from kinema.core.system import System
    from kinema.evaluation.layers import Layer

CLIPS = 512
FEWEST_OCCLUSIONS = 27  # repeated from kinema.evaluation.units, which needs torch; a test compares them
LINES = 12  # of the table in the terminal


@dataclass(frozen=True, kw_only=True)
class Units(Config):
    """Show what a unit looks for: its top clips with the region that drives it lit, and how large a part it sees.

    The same command goes on where it was stopped.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """Run directory, checkpoint file or zoo:NAME."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """Prepared dataset with the clips to look at."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for units.html and units.json. Default: units in the run directory, or NAME-units here."""
    layer: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Convolutional layer; --list names them. Default: the last hidden one of the encoder, else of the discriminator."""
    list: bool = False
    """Only list the layers with their units and the size of their maps."""
    units: Annotated[str | None, tyro.conf.arg(metavar="12,57", help_behavior_hint="")] = None
    """Which units. Default: the most selective."""
    top_units: int = 12
    """How many units, where --units does not name them."""
    top: int = 6
    """Clips per unit, at most one per source where there are as many sources."""
    clips: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Clips to look at, drawn by seed. Default: 512, or as many as there are."""
    split: Literal["train", "test", "all"] = "all"
    """Which clips of the dataset."""
    share: float = 0.005
    """Share of a unit's activations, over all positions of all clips, that lie above the threshold of its lit region."""
    occlusions: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Patches slid over a top clip, at most; more are finer and slower. 0 leaves receptive fields out. Default: 512, fewer for
    layers that see much of the clip at once."""
    occluder: Literal["grey", "noise"] = "grey"
    """What is in a patch; noise also where the footage itself is grey."""
    seed: int = 0
    """Of the clips, the noise and untrained weights."""
    random: bool = False
    """Show the same layer before training: new weights that have seen a few clips, so that their normalisations fit."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace a sheet that exists."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        self.at_least(1, "top_units", "top")
        self.require(self.seed >= 0, "seed", "0 or more")
        self.require(self.clips is None or self.clips >= 1, "clips", "at least 1")
        self.require(0 < self.share < 1, "share", "between 0 and 1")
        enough = self.occlusions in (None, 0) or self.occlusions >= FEWEST_OCCLUSIONS
        self.require(enough, "occlusions", f"0, or at least {FEWEST_OCCLUSIONS}")
        self.wanted()

    def wanted(self) -> tuple[int, ...] | None:
        """Return the units that are named."""
        if self.units is None:
            return None
        if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", self.units):
            raise ConfigError(f"--units {self.units!r} is no list of units; write for example 12,57")
        units = tuple(int(unit) for unit in self.units.split(","))
        if len(set(units)) < len(units):
            raise ConfigError(f"--units {self.units!r} names a unit twice; name each once")
        return units


def run(arguments: list[str]) -> int:
    """Run ``kinema units``."""
    options = parse(Units, arguments, "units")
    if not options.list and options.data is None:
        raise ConfigError("units wants clips to look at; give --data DATA")
    from kinema.evaluation.layers import find_layer, layers_of
    from kinema.training.checkpoint import load_checkpoint, resolve
    from kinema.training.distributed import choose_device

    device = choose_device(options.device)
    checkpoint = load_checkpoint(resolve(options.run))
    system = (_untrained(checkpoint.system, options.seed) if options.random else checkpoint.system).to(device)
    layers = layers_of(system)
    layer = find_layer(layers, options.layer, options.run)
    if options.list or options.data is None:
        return _list(options.run, layers, layer)
    return _show(options, options.data, layer, checkpoint.metadata)


def _untrained(system: "System[Any]", seed: int) -> "System[Any]":
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(system)(system.config).eval()


def _list(owner: str, layers: "list[Layer]", default: "Layer") -> int:

    lines = []
    for layer in layers:
        sizes = ["x".join(str(side) for side in sides) for sides in (layer.map_shape, layer.field.extent, layer.field.stride)]
        lines.append((layer.name, str(layer.channels), *sizes, "default" if layer is default else ""))
    print_table(f"layers of {owner}", ("layer", "units", "map", "receptive field", "stride", ""), lines)
    print("sizes are frames x height x width, or height x width for layers that look at the first frame")
    return 0


def _show(options: Units, data: Path, layer: "Layer", metadata: Any) -> int:
    from kinema.data.dataset import Dataset
    from kinema.evaluation.unfinished import UNFINISHED
    from kinema.evaluation.unit_sheet import HTML_NAME, Footage, examine, keeper, write_sheet
    from kinema.evaluation.units import Question, refuse_unknown_units, settle, usual_occlusions
    from kinema.training.checkpoint import provenance

    dataset = Dataset(data, None if options.split == "all" else options.split)
    if dataset.shape != metadata.clip:
        raise EvaluationError(
            f"{data} holds clips of {dataset.shape} and {options.run} was trained on {metadata.clip} (frames x height x "
            "width); prepare the data with the same --frames and --size"
        )
    units = options.wanted()
    refuse_unknown_units(units or (), layer.channels)
    footage = Footage(dataset, options.clips or min(CLIPS, len(dataset)), options.top, options.seed)
    folder = _free_folder(options)
    occlusions = usual_occlusions(layer, dataset.shape) if options.occlusions is None else options.occlusions
    choices = {name: getattr(options, name) for name in ("top", "share", "occluder", "seed")}
    question = Question(units=units, shown=options.top_units, occlusions=occlusions, **choices)
    network = _network(options, metadata)
    keep = keeper(folder / UNFINISHED, network, layer, footage)
    with Progress() as progress:
        if options.random:
            settle(layer, footage.read, range(footage.count), progress.show, keep("settled", options.seed))
        report, views, clips = examine(layer, footage, question, progress.show, keep)
    report |= {"network": network, "provenance": provenance()}
    write_sheet(folder, report, views, clips)
    shutil.rmtree(folder / UNFINISHED)
    _summarise(report, layer, data)
    print(f"sheet: {folder / HTML_NAME}")
    return 0


def _network(options: Units, metadata: Any) -> dict[str, Any]:
    import hashlib

    from kinema.training.checkpoint import resolve

    return {
        "name": options.run,
        "system": metadata.system,
        "weights": f"untrained, seed {options.seed}" if options.random else f"trained, {metadata.steps} steps",
        "stage": metadata.stage,
        "steps": metadata.steps,
        "checkpoint sha256": hashlib.sha256(resolve(options.run).read_bytes()).hexdigest(),
    }


def _free_folder(options: Units) -> Path:
    """Return where the sheet goes, or refuse a folder that has one."""
    from kinema.evaluation.unit_sheet import HTML_NAME, JSON_NAME
    from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX

    run = Path(options.run)
    beside_run = run / "units" if (run / CHECKPOINT_NAME).exists() else None
    folder = options.out or beside_run or Path(f"{Path(options.run.removeprefix(ZOO_PREFIX)).stem}-units")
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"{folder} is a file; --out is a folder for {JSON_NAME} and {HTML_NAME}")
    if not options.overwrite and (taken := next((f for f in (folder / JSON_NAME, folder / HTML_NAME) if f.exists()), None)):
        raise EvaluationError(f"{taken} exists; give another --out, or --overwrite to replace it")
    return folder


def _summarise(report: dict[str, Any], layer: "Layer", data: Path) -> None:
    """Print a line per unit and what the whole layer is like."""
    from kinema.evaluation.report import number

    lines = []
    for unit in report["units"][:LINES]:
        field = unit.get("receptive field", {}).get("extent", [])
        label = f"{unit['label share']:.0%} {unit['label']}" if unit.get("label share", 0) * len(unit["clips"]) > 1.5 else ""
        moves = unit["movement in lit region"]
        lines.append(
            (
                str(unit["unit"]),
                f"{unit['selectivity']:.2f}",
                "x".join(str(side) for side in field),
                "" if moves is None else number(moves),
                label,
            )
        )
    allowed = "x".join(str(side) for side in layer.field.extent)
    columns = ("unit", "selectivity", f"receptive field, of {allowed}", "movement, times the clip's", "label of the top clips")
    print_table(f"{layer.name} of {report['network']['name']} on {data}: {report['data']['clips']} clips", columns, lines)
    summary = report["summary"]
    if "label share" in summary and summary["label share"] is not None:
        chance = summary["label share by chance"]
        print(f"most frequent label of the top clips: {summary['label share']:.0%} over all units; by chance {chance:.0%}")
    for kind, about in {"dead": "never change", "silent": "are never above zero"}.items():
        if summary[kind]:
            print(f"{len(summary[kind])} of {layer.channels} units are {kind}: they {about}")
