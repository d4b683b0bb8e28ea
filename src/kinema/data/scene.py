"""Scene filters: keep the clips that show what is wanted.

The paper filters by a network trained on Places2, whose weights are not ours to give. Here stand a packaged ImageNet network,
to be asked by class names, and a way in for any classifier of your own. Frames are evenly spaced, their probabilities averaged.

References:
    Vondrick et al., "Generating Videos with Scene Dynamics", Section 4.1; number of frames, average and threshold are a choice.
"""

import importlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from kinema.core.errors import ConfigError, DataError, accepted
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE, image_network, needed

VIEW = 224  # edge of the pictures that classifiers are given, in pixels
CLASS_NAMES = Path(__file__).with_name("imagenet_classes.txt")


@runtime_checkable
class Recogniser(Protocol):
    """Tells what pictures show."""

    @property
    def names(self) -> Sequence[str]:
        """Classes."""
        ...

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N K"]:
        """Return the probability of each of the classes `names` in each frame."""
        ...


@runtime_checkable
class SceneFilter(Protocol):
    """Decides by what a clip shows."""

    def scores(self, frames: UInt8[np.ndarray, "N H W 3"]) -> dict[str, float]:
        """Return the mean probability of every wanted class."""
        ...

    def accepts(self, scores: Mapping[str, float]) -> bool:
        """Tell whether a clip with these scores is wanted."""
        ...


@dataclass(frozen=True)
class ClassFilter:
    """Keeps what shows one of some classes.

    Attributes:
        recognise: tells what frames show.
        thresholds: class -> least mean probability.
    """

    recognise: Recogniser
    thresholds: Mapping[str, float]

    def scores(self, frames: UInt8[np.ndarray, "N H W 3"]) -> dict[str, float]:
        """Return the mean probability of every wanted class; classes of one name are added."""
        mean = self.recognise(frames).mean(axis=0)
        totals: defaultdict[str, float] = defaultdict(float)
        for name, probability in zip(self.recognise.names, mean.tolist(), strict=True):
            totals[name] += probability
        return {name: round(totals[name], 4) for name in self.thresholds}

    def accepts(self, scores: Mapping[str, float]) -> bool:
        """Tell whether any class reaches its threshold."""
        return any(scores[name] >= threshold for name, threshold in self.thresholds.items())


@lru_cache(maxsize=1)  # a worker loads the network once, not once per task
def open_scene_filter(model: str, wanted: tuple[str, ...], threshold: float, names: str | None = None) -> SceneFilter:
    """Open the filter that a command line describes.

    Args:
        model: ``imagenet``, the path of an exported program or TorchScript file, or ``module:callable``.
        wanted: classes, each ``NAME`` or ``NAME=PROBABILITY``.
        threshold: least mean probability of classes that name none.
        names: file with the class names of such a file.

    Raises:
        ConfigError: a class that the model does not have, or a probability outside [0, 1].
        DataError: the model cannot be loaded.
    """
    thresholds = dict(_threshold(entry, threshold) for entry in wanted)
    if model == "imagenet":
        recognise: Recogniser = _image_net()
    elif ":" in model and not Path(model).exists():
        recognise = UserCallable(model, tuple(thresholds))
    else:
        recognise = UserNetwork(Path(model), names)
    for name in thresholds:
        if name not in recognise.names:
            raise ConfigError(f"{model} has no class {name!r}; {_near(name, recognise.names)}")
    return ClassFilter(recognise, thresholds)


@lru_cache(maxsize=1)
def _image_net() -> "ImageNet":
    return ImageNet()


class ImageNet:
    """EfficientNet-Lite0 with the ImageNet weights that the ``features`` extra packages."""

    def __init__(self) -> None:
        self.names = CLASS_NAMES.read_text(encoding="utf-8").splitlines()
        self._torch = needed("torch", "kinema")
        self._network = image_network()

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N K"]:
        """Return the probabilities of the 1000 classes."""
        pixels = (self._torch.from_numpy(frames).permute(0, 3, 1, 2).float() - IMAGE_MEAN) / IMAGE_SCALE
        with self._torch.inference_mode():
            return self._network(pixels).softmax(dim=1).numpy()


class UserNetwork:
    """A user's own network: float RGB in [0, 1], N 3 224 224, to logits or probabilities N K.

    Args:
        path: a program of torch.export (.pt2, with a dynamic batch dimension), or a TorchScript file.
        names: text file with one class name per line; by default the classes are called 0, 1, 2 ...
    """

    def __init__(self, path: Path, names: str | None) -> None:
        self._torch = needed("torch", "kinema")
        self._path = path
        if not path.is_file():
            raise DataError(f"{path} does not exist; a scene model is imagenet, a .pt2 or TorchScript file, or MODULE:CALLABLE")
        self._network = self._load()
        count = self._probabilities(np.zeros((1, VIEW, VIEW, 3), np.uint8)).shape[1]
        self.names = [str(number) for number in range(count)] if names is None else _read_names(Path(names), count)

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N K"]:
        """Return the probabilities of the network's classes."""
        return self._probabilities(frames)

    def _load(self) -> Any:
        try:
            if self._path.suffix == ".pt2":
                return self._torch.export.load(self._path).module()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather export; people have these files
                return self._torch.jit.load(self._path, map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{self._path} is no program of torch.export and no TorchScript file: {reason}") from None

    def _probabilities(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N K"]:
        try:
            with self._torch.inference_mode():
                output = self._network(self._torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise DataError(f"{self._path} does not take {len(frames)} images of {VIEW}x{VIEW}: {reason}") from None
        if not self._torch.is_tensor(output) or output.ndim != 2 or len(output) != len(frames):
            raise DataError(f"{self._path} must return one row of class scores per image")
        sums = output.sum(dim=1)
        are_probabilities = bool((output >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
        return (output if are_probabilities else output.softmax(dim=1)).float().numpy()


class UserCallable:
    """A user's own function, ``module:callable``: uint8 N H W 3 to a mapping of class names to probabilities.

    Args:
        place: where to import it from.
        wanted: classes that will be asked for.
    """

    def __init__(self, place: str, wanted: tuple[str, ...]) -> None:
        module, _, name = place.partition(":")
        self._place = place
        try:
            self._function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DataError(f"the scene model {place} cannot be imported ({error}); is its folder in PYTHONPATH?") from None
        self.names = wanted

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N K"]:
        """Return the probabilities of the wanted classes; a mapping holds one number per class, or one per frame."""
        answer = self._function(frames)
        if not isinstance(answer, Mapping) or any(name not in answer for name in self.names):
            raise DataError(f"{self._place} must return a mapping with a probability for {', '.join(self.names)}")
        columns = [np.broadcast_to(np.asarray(answer[name], np.float64), len(frames)) for name in self.names]
        return np.stack(columns, axis=1)


def _threshold(entry: str, default: float) -> tuple[str, float]:
    name, equals, number = entry.partition("=")
    try:
        threshold = float(number) if equals else default
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise ConfigError(f"scene {entry!r}: the probability must be a number from 0 to 1")
    return name.strip(), threshold


def _near(name: str, names: Sequence[str]) -> str:
    """Name what was perhaps meant; a thousand names would be no help."""
    holding = [known for known in names if name.lower() in known.lower()][:5]
    if holding:
        return f"did you mean {' or '.join(map(repr, holding))}?"
    hint, _, rest = accepted(name, names).rpartition("accepted: ")
    return hint + (f"accepted: {rest}" if len(names) <= 20 else f"it has {len(names)} classes such as {', '.join(names[:3])}")


def _read_names(path: Path, count: int) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    names = [name.strip() for name in names if name.strip()]
    if len(names) != count:
        raise DataError(f"{path} has {len(names)} class names; the scene model has {count} classes")
    return names
