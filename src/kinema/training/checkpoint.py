"""Checkpoints: one safetensors file that rebuilds a sampler, with nothing beside it; and the state to resume from.

The metadata hold, as JSON under ``kinema``, everything but the weights: format version, system, full configuration, stage,
steps, dataset, provenance; and the SHA-256 digest of the rest of the file.
"""

import hashlib
import json
import os
import pickle
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

import kinema
from kinema.core.config import from_mapping, to_mapping
from kinema.core.errors import CheckpointError, ConfigError, NotFiniteWeightsError, accepted
from kinema.core.system import System
from kinema.core.types import ClipShape
from kinema.systems import SYSTEMS
from kinema.training.memory import keep_channels_together

FORMAT_VERSION = 1
RESUME_VERSION = 1
CHECKPOINT_NAME = "checkpoint.safetensors"
ZOO_PREFIX = "zoo:"


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says about itself.

    Attributes:
        system: name of the system.
        config: its full configuration, as JSON values.
        clip: shape of its clips.
        stage: the stage that was trained last.
        steps: steps played in the run, earlier stages included.
        dataset: what it was trained on: fingerprint, labels, frame rate, and whatever else the caller gave.
        provenance: versions, time, machine, command; see `provenance`.
        shared: names of tensors that are stored under another name.
        format_version: of the file.
    """

    system: str
    config: Mapping[str, Any]
    clip: ClipShape
    stage: str
    steps: int
    dataset: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Checkpoint:
    """A system rebuilt from its file, in evaluation mode, and what the file says about it."""

    system: System[Any]
    metadata: Metadata


def save_checkpoint(
    path: Path | str,
    system: System[Any],
    *,
    stage: str,
    steps: int = 0,
    dataset: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a system's weights and everything needed to rebuild it; the file appears whole or not at all.

    Args:
        path: file to write or replace.
        system: usually the trainer's refreshed sampler.
        stage: the stage that was trained last.
        steps: steps played.
        dataset: JSON values about what it was trained on.
        provenance: JSON values about how; see `provenance`.
        dtype: storage of floating-point tensors; `torch.float16` halves the file.

    Raises:
        CheckpointError: when the file cannot be written, or a weight does not fit `dtype`.
    """
    tensors, shared = _storable(system, dtype)
    metadata = {
        "format_version": FORMAT_VERSION,
        "system": system.name,
        "config": to_mapping(system.config),
        "clip": [system.clip_shape.frames, system.clip_shape.height, system.clip_shape.width],
        "stage": stage,
        "steps": steps,
        "dataset": dict(dataset or {}),
        "provenance": dict(provenance or {}),
        "shared": shared,
    }
    metadata["digest"] = digest_of(metadata, tensors)
    content = to_bytes(tensors, {"kinema": json.dumps(metadata)})
    replace_file(path, lambda beside: beside.write_bytes(content))


def load_checkpoint(path: Path | str, *, system_name: str | None = None) -> Checkpoint:
    """Rebuild a system from a checkpoint file or a run directory.

    Args:
        path: the file, or the directory that holds ``checkpoint.safetensors``.
        system_name: refuse a checkpoint of any other system.

    Raises:
        CheckpointError: for a file that is missing, damaged, changed, too new, of another or unknown system, or that does
            not fit its own configuration.
    """
    file = _checkpoint_file(Path(path))
    raw, tensors = _read(file)
    metadata = _described(raw, file)
    if system_name is not None and metadata.system != system_name:
        raise CheckpointError(f"{file} holds the system {metadata.system!r}; {system_name!r} was asked for")
    if digest_of({key: value for key, value in raw.items() if key != "digest"}, tensors) != raw.get("digest"):
        raise CheckpointError(f"{file} was changed after it was written (its digest does not match); use an unchanged copy")
    return Checkpoint(_rebuilt(metadata, tensors, file), metadata)


def read_metadata(path: Path | str) -> Metadata:
    """Read what a checkpoint says about itself, without its weights; raises as `load_checkpoint` does."""
    file = _checkpoint_file(Path(path))
    return _described(_read(file, tensors=False)[0], file)


def load(source: Path | str) -> System[Any]:
    """Return a trained system, ready to sample.

    Args:
        source: a run directory, a checkpoint file, or ``zoo:NAME`` for one that comes with kinema.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    return load_checkpoint(resolve(source)).system


def resolve(source: Path | str) -> Path:
    """Return the checkpoint file that a run directory, a file or ``zoo:NAME`` stands for; `CheckpointError` if none."""
    if not str(source).startswith(ZOO_PREFIX):
        return _checkpoint_file(Path(source))
    name = str(source).removeprefix(ZOO_PREFIX)
    if name not in zoo():
        raise CheckpointError(f"there is no {source}; {accepted(name, zoo())}")
    return _zoo_directory() / f"{name}.safetensors"


def run_name(source: Path | str) -> str:
    """Return what a person calls what `resolve` takes: the folder of a run, the file of a checkpoint without its ending."""
    if str(source).startswith(ZOO_PREFIX):
        return str(source).removeprefix(ZOO_PREFIX)
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.parent.name if path.name == CHECKPOINT_NAME else path.stem


def zoo() -> list[str]:
    """Name the trained systems that come with kinema."""
    return sorted(file.stem for file in _zoo_directory().glob("*.safetensors"))


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe versions, time, machine and command as JSON values.

    Args:
        command: words of the command line; by default this process's own.
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "kinema": kinema.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores" + (f", {gpu}" if gpu else ""),
        "command": list(sys.argv if command is None else command),
    }


def save_resume(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write the state to resume from (trainer, loader, ...); the file appears whole or not at all."""
    with saving_resume(path, state):
        pass


@contextmanager
def saving_resume(path: Path | str, state: Mapping[str, Any]) -> Iterator[None]:
    """Write the state to resume from, and put it into place when the block succeeds; what fails there leaves the old one."""
    with replacing(path, lambda beside: torch.save({"format_version": RESUME_VERSION, **state}, beside)):
        yield


def load_resume(path: Path | str) -> dict[str, Any]:
    """Read what `save_resume` wrote.

    Raises:
        CheckpointError: when the file is missing or damaged, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: there is nothing to resume from; start the run anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged ({_first_line(error)}); start the run anew with --overwrite") from None
    if (version := state.get("format_version", 0)) > RESUME_VERSION:
        raise CheckpointError(f"{path} has format {version}; this kinema reads {RESUME_VERSION}: update kinema")
    return state


def replace_file(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it into place, so that a stop at any moment harms nothing.

    Raises:
        CheckpointError: when the file cannot be written (permission, full disk); the old one is then untouched.
    """
    with replacing(path, write):
        pass


@contextmanager
def replacing(path: Path | str, write: Callable[[Path], object]) -> Iterator[None]:
    """Let `write` make a file beside `path`, and rename it into place when the block succeeds; raises as `replace_file`."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with _told(path):
            write(beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        yield
        with _told(path):
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in a sentence why a file cannot be written; torch's own words for a full disk are those of its source code."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        reason = _first_line(error) if isinstance(error, OSError) else "not all of it could be written"
        raise CheckpointError(f"{path} cannot be written: {reason} ({free // 2**20} MiB free)") from None


def _storable(system: System[Any], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return contiguous CPU tensors by name, and the names of those that are the same tensor as another."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in system.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            shared[name] = first[place]
            continue
        first[place] = name
        stored = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        if tensor.is_floating_point() and not torch.isfinite(stored).all():
            raise NotFiniteWeightsError(
                f"{name} of {system.name} holds numbers that are not finite in {dtype}; it is not saved"
            )
        tensors[name] = stored.clone(memory_format=torch.contiguous_format)
    return tensors, shared


def digest_of(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the metadata and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checkpoint_file(path: Path) -> Path:
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.is_file():
        what = "is a directory without a checkpoint.safetensors" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a run directory, a checkpoint file or zoo:NAME")
    return file


def _read(file: Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the raw metadata and the tensors of a file."""
    try:
        with safetensors.safe_open(file, "pt") as reader:
            raw = json.loads((reader.metadata() or {})["kinema"])
            names = reader.keys() if tensors else []
            return raw, {name: reader.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is no safetensors file, or was cut short: {_first_line(error)}") from None
    except (KeyError, ValueError):
        raise CheckpointError(f"{file} is a safetensors file, but not a kinema checkpoint") from None


def _described(raw: Mapping[str, Any], file: Path) -> Metadata:
    """Return checked metadata."""
    version = raw.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(f"{file} has format {version}; this kinema reads up to {FORMAT_VERSION}: update kinema")
    try:
        values = {name: raw[name] for name in ("system", "config", "stage", "steps", "dataset", "provenance", "shared")}
        metadata = Metadata(clip=ClipShape(*raw["clip"]), format_version=version, **values)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file} lacks {error} in its metadata; use an unchanged copy") from None
    if metadata.system not in SYSTEMS:
        raise CheckpointError(f"{file} holds the unknown system {metadata.system!r}; {accepted(metadata.system, SYSTEMS)}")
    return metadata


def _rebuilt(metadata: Metadata, tensors: dict[str, Tensor], file: Path) -> System[Any]:
    """Build the system and fill in its weights."""
    system_class = SYSTEMS[metadata.system]
    try:
        config = from_mapping(system_class.config_class, metadata.config)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        system = system_class(config)
    weights = tensors | {name: tensors[kept] for name, kept in metadata.shared.items() if kept in tensors}
    refuse_unfitting(system, weights, file)
    system.load_state_dict(weights)
    keep_channels_together(system)  # as training leaves them: in another order sums round otherwise
    return system.eval()


def refuse_unfitting(system: System[Any], weights: Mapping[str, Tensor], file: Path | str) -> None:
    """Raise `CheckpointError` for the first weight that is missing, superfluous or of another shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in system.state_dict().items()}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"{file} lacks the weight {name!r} of {system.name}; it was made by another kinema")
        if name not in wanted:
            raise CheckpointError(f"{file} holds {name!r}, which {system.name} does not have; it was made by another kinema")
        shape = tuple(weights[name].shape)
        if shape != wanted[name]:
            raise CheckpointError(
                f"{file} holds {name!r} of shape {shape}; {system.name} with its settings wants {wanted[name]}"
            )


def _zoo_directory() -> Path:
    return Path(str(resources.files("kinema"))) / "zoo"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
