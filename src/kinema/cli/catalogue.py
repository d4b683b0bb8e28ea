"""Verbs that say what there is: list (systems) and info (what is inside a run, a dataset or a piece of footage)."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.core.errors import DataError


@dataclass(frozen=True)
class List:
    """Show systems, what they can do and their presets."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Info:
    """Say what is inside a run, a checkpoint, a dataset or a piece of footage."""

    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|DATA|FILE", help_behavior_hint="")]
    """Run directory, checkpoint file, zoo:NAME, dataset, video or image."""
    verify: bool = False
    """Read every byte of a dataset and compare it with its checksums."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON."""


def list_systems(arguments: list[str]) -> int:
    """Run ``kinema list``."""
    options = parse(List, arguments, "list")
    systems = describe_systems()
    if options.as_json:
        print(json.dumps(systems, indent=2))
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("system", no_wrap=True)
    for column in ("paper", "can", "needs", "presets"):
        table.add_column(column)
    for name, system in systems["systems"].items():
        can = ", ".join(ability for ability in system["abilities"] if ability != "score")  # scoring serves training alone
        paper = f"{system['paper']['title']} ({system['paper']['venue']} {system['paper']['year']})"
        table.add_row(name, paper, can or "-", ", ".join(system["needs"]), ", ".join(system["presets"]))
    console = Console()
    console.print(table)
    console.print(f"trained, ready to sample: {', '.join('zoo:' + name for name in systems['zoo']) or 'none'}", highlight=False)
    console.print("kinema train SYSTEM --help explains the presets and settings of a system", highlight=False)
    return 0


def info(arguments: list[str]) -> int:
    """Run ``kinema info``."""
    options = parse(Info, arguments, "info")
    facts = describe(options.path, verify=options.verify)
    if options.as_json:
        print(json.dumps(facts, indent=2))
        return 0
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:<{width}}  {_words(value)}")
    return 0


def describe_systems() -> dict[str, Any]:
    """Describe every system, and name the trained ones that come with kinema, as JSON values."""
    from kinema.core.tasks import abilities
    from kinema.systems import SYSTEMS
    from kinema.training.checkpoint import zoo

    systems = {
        name: {
            "paper": asdict(system.paper),
            "abilities": abilities(system),
            "needs": sorted(system.needs),
            "presets": {preset: settings.about for preset, settings in system.presets.items()},
        }
        for name, system in SYSTEMS.items()
    }
    return {"systems": systems, "zoo": zoo()}


def describe(path: str, *, verify: bool = False) -> dict[str, Any]:
    """Describe a run, a checkpoint, a dataset, a piece of footage or arrays as JSON values.

    Raises:
        KinemaError: of the layer that reads it, when it is missing or damaged.
    """
    from kinema.data.dataset import INFO_NAME

    place = Path(path)
    if (place / INFO_NAME).exists():
        return _describe_dataset(place, verify)
    if verify:
        raise DataError(f"{path} is no dataset, so there are no checksums to verify; leave out --verify")
    if place.is_file() and place.suffix in (".npy", ".npz"):
        from kinema.data.tags import read_tags

        return {"arrays": str(place), **_said(read_tags(place))}
    if place.is_file() and place.suffix != ".safetensors":
        return _describe_footage(place)
    from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX  # needs torch, which data and footage do not

    if place.is_dir() and not (place / CHECKPOINT_NAME).exists():
        raise DataError(
            f"{path} is a folder without {INFO_NAME} or {CHECKPOINT_NAME}; give a dataset, a run, or a file of footage"
        )
    if not place.exists() and not path.startswith(ZOO_PREFIX):
        raise DataError(f"{path} does not exist; give a run, a checkpoint file, zoo:NAME, a dataset, a video or an image")
    return _describe_checkpoint(path)


def _describe_checkpoint(path: str) -> dict[str, Any]:
    from kinema.core.tasks import abilities
    from kinema.systems import SYSTEMS
    from kinema.training.checkpoint import read_metadata, resolve

    file = resolve(path)
    metadata = read_metadata(file)
    system = SYSTEMS[metadata.system]
    return {
        "checkpoint": str(file),
        "bytes": file.stat().st_size,
        "system": metadata.system,
        "paper": f"{system.paper.title} ({system.paper.venue} {system.paper.year})",
        "can": abilities(system),
        "clips": str(metadata.clip),
        "trained": f"stage {metadata.stage}, {metadata.steps} steps",
        "settings": dict(metadata.config),
        "dataset": dict(metadata.dataset),
        "made by": dict(metadata.provenance),
    }


def _describe_dataset(place: Path, verify: bool) -> dict[str, Any]:
    from kinema.data.dataset import ARRAYS, Dataset, rates_in_words

    dataset = Dataset(place)
    if verify:
        dataset.verify()
    records = [dataset.record(index) for index in range(len(dataset))]
    held, rates = dataset.info, Counter(record.fps for record in records)
    return {
        "dataset": str(place),
        "clips": len(dataset),
        "shape": str(dataset.shape),
        "frames per second": held.fps if len(rates) == 1 else rates_in_words(rates),
        "splits": dict(Counter(record.split for record in records)),
        "labels": dict(Counter(record.label for record in records if record.label is not None)),
        "captions": sum(record.caption is not None for record in records),
        "groups": len({record.group for record in records if record.group is not None}),
        "arrays": [name for name in ARRAYS if name in dataset.arrays],
        "skeleton": held.skeleton,
        "sources": len(held.sources),
        "refused": held.refused,
        "settings": held.settings,
        "bytes": sum(checksum.bytes for checksum in held.checksums.values()),
        "fingerprint": dataset.fingerprint,
        "verified": verify,
    }


def _describe_footage(place: Path) -> dict[str, Any]:
    from kinema.data.media import probe

    found = probe(place)
    return {
        "footage": str(place),
        "size": f"{found.width}x{found.height}",
        "frames per second": float(found.fps) if found.fps else None,
        "frames": found.frames,
        "seconds": found.duration,
        "rotation": found.rotation,
        "codec": found.codec,
        **_said(found.metadata),
    }


def _said(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the tags of a file, and apart from them what it says about how it was made, where that can be read."""
    from kinema.data.tags import GENERATED_TAG

    try:
        made = json.loads(tags.get(GENERATED_TAG, "null"))
    except ValueError:
        made = None
    if not isinstance(made, dict):
        return {"tags": dict(tags)}
    others = {name: text for name, text in tags.items() if name != GENERATED_TAG}
    return {"tags": others, "generated" if made.get("synthetic") else "drawn": made}


def _words(value: object) -> str:
    """Write a JSON value for a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_words, value))})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
