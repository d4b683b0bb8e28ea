"""What is looked at before a run begins: whether the clips of a dataset are what a system trains on."""

from pathlib import Path
from typing import Any

from kinema.core.config import shape_options
from kinema.core.errors import TrainingError
from kinema.core.system import System
from kinema.data.dataset import Dataset


def open_dataset(path: Path, split: str) -> tuple[Dataset, Dataset | None]:
    """Return the clips to train on, and those that are held out, if any."""
    everything = Dataset(path)
    training = everything if split == "all" else Dataset(path, split)
    if len(training) == len(everything):
        return training, None
    return training, Dataset(path, "test" if split == "train" else "train")


def refuse_misfit(dataset: Dataset, system: System[Any], flip: bool = False) -> None:
    """Raise when the clips of a dataset are not what a system trains on.

    Args:
        dataset: that it would train on.
        system: with its settings.
        flip: half of the clips would be mirrored.

    Raises:
        TrainingError: for clips of another size, shorter clips, or clips without the labels, captions or arrays that it needs;
            for mirrored clips of a system that learns one still background.
    """
    if flip and system.stands_still:
        raise TrainingError(f"{system.name} learns one still background, which mirrored clips contradict; leave out --flip")
    has, wants = dataset.shape, system.clip_shape
    if (has.height, has.width) != (wants.height, wants.width) or has.frames < wants.frames:
        options = shape_options(system.config, min(has.frames, wants.frames), has.height, has.width)
        raise TrainingError(
            f"{dataset.path} holds clips of {has}, and {system.name} with these settings trains on {wants}; "
            f"prepare the footage at that size, or {f'give {options}' if options else 'choose other settings'}"
        )
    labels = dataset.info.labels
    known = getattr(system, "class_names", None)  # of a system that learns these classes and no others
    if known and dataset.labels is not None and sorted(labels) != sorted(known):
        raise TrainingError(
            f"{dataset.path} has the classes {', '.join(labels[:12])}, and {system.name} learns {' and '.join(known)}; "
            f"prepare footage in folders of these names with --labels"
        )
    classes = getattr(system.config, "classes", len(labels))
    if "label" in system.needs and dataset.labels is not None and classes != len(labels):
        named = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
        raise TrainingError(
            f"{dataset.path} has {len(labels)} classes ({named}) and {system.name} is set to {classes}; "
            f"give --classes {len(labels)}"
        )
    carries = {*dataset.arrays} | ({"label"} if dataset.labels is not None else set())
    if dataset.captioned:
        carries.add("caption")
    layout = getattr(system.config, "skeleton", dataset.info.skeleton)
    if "pose" in system.needs & carries and dataset.info.skeleton != layout:
        raise TrainingError(
            f"the poses of {dataset.path} are of the skeleton {dataset.info.skeleton} and {system.name} is set to {layout}; "
            f"give --skeleton {dataset.info.skeleton}"
        )
    if missing := sorted(system.needs - carries):
        raise TrainingError(
            f"{system.name} learns from {' and '.join(sorted(system.needs))}; the clips of {dataset.path} come without "
            f"{' and '.join(missing)}: prepare them with {'--pose mediapipe' if missing == ['pose'] else 'it'}"
        )
