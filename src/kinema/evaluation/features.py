"""Feature networks: what turns a clip into the vector whose distribution is compared.

A number is named after its network. The packaged one is no I3D, so its distance is never called FVD.
"""

import hashlib
import importlib
import sys
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE, IMAGE_WEIGHTS_SHA256, image_network
from kinema.evaluation import i3d, inception
from kinema.evaluation.network import Clips, FeatureNetwork

VIEW = 128  # edge of the frames that the packaged network sees; a choice: a third of the work of 224
FRAMES_AT_ONCE = 32
PACKAGED = "efficientnet-lite0+dt"


class ImageFeatures(FeatureNetwork):
    """EfficientNet-Lite0 of ImageNet: pooled features of the frames, their mean and how much they change.

    A clip's vector is the mean over frames of the 1,280 pooled features, then the mean absolute difference of those of
    consecutive frames: 2,560 numbers. It is blind to the direction of time.

    Args:
        device: where to compute.

    Raises:
        ConfigError: the ``features`` extra is not installed.
        DataError: the packaged weights are not the expected ones.
    """

    id = PACKAGED
    sha256 = IMAGE_WEIGHTS_SHA256
    preprocessing = f"bilinear with antialias to {VIEW}x{VIEW}, (pixel - {IMAGE_MEAN}) / {IMAGE_SCALE}"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._device = device
        self._network = image_network().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Float[Tensor, "B D"]:
        """Return 2,560 numbers per clip; clips need at least two frames."""
        count, frames = clips.shape[:2]
        if frames < 2:
            raise EvaluationError(f"{self.id} measures change over time and needs clips of 2 frames or more, not {frames}")
        pooled = torch.cat([self._pooled(part) for part in clips.flatten(0, 1).split(FRAMES_AT_ONCE)])
        pooled = pooled.reshape(count, frames, -1)  # B T 1280
        change = (pooled[:, 1:] - pooled[:, :-1]).abs().mean(dim=1)
        return torch.cat([pooled.mean(dim=1), change], dim=1).float().cpu()

    def _pooled(self, frames: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N F"]:
        pixels = frames.to(self._device).permute(0, 3, 1, 2).float()  # channels_last as it is
        pixels = F.interpolate(pixels, size=(VIEW, VIEW), mode="bilinear", antialias=True, align_corners=False)
        return self._network.extract_features((pixels - IMAGE_MEAN) / IMAGE_SCALE).mean(dim=(2, 3))


class UserFeatures(FeatureNetwork):
    """A user's own network: float clips in [-1, 1], B 3 T H W, to vectors B D.

    Args:
        place: ``module:attribute``; the attribute is a `torch.nn.Module`, or a function without arguments that returns one.
        device: where to compute.

    Raises:
        EvaluationError: when it cannot be imported or is no module.
    """

    preprocessing = "none: pixels in [-1, 1]"

    def __init__(self, place: str, device: torch.device) -> None:
        super().__init__(place, device)
        self.id = place
        self._device = device
        module, _, name = place.partition(":")
        try:
            network = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise EvaluationError(
                f"the feature network {place} cannot be imported ({error}); is its folder in PYTHONPATH?"
            ) from None
        network = network if isinstance(network, nn.Module) or not callable(network) else network()
        if not isinstance(network, nn.Module):
            raise EvaluationError(f"{place} is a {type(network).__name__}; a feature network is a torch.nn.Module or makes one")
        self._network = network.to(device).eval()
        # Stored measures are found by this, and what a network does may change while its weights stay.
        self.sha256 = hashlib.sha256(f"{digest(self._network)} {code_digest(self._network, module)}".encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Float[Tensor, "B D"]:
        """Return one vector per clip."""
        video = clips.to(self._device).permute(0, 4, 1, 2, 3).div(127.5).sub(1)
        try:
            found = self._network(video)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EvaluationError(f"{self.id} does not take clips of shape {tuple(video.shape)}: {reason}") from None
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(clips):
            raise EvaluationError(f"{self.id} must return one vector per clip, of shape ({len(clips)}, D)")
        return found.float().cpu()


def open_features(
    name: str, device: torch.device, *, weights: Path | None = None, weights_sha256: str | None = None
) -> FeatureNetwork:
    """Return the network of a name.

    Args:
        name: the packaged one, ``i3d``, ``inception``, or ``module:attribute``.
        device: where to compute.
        weights: file for ``i3d`` and ``inception``, which are not packaged.
        weights_sha256: what the digest of that file must be.

    Raises:
        EvaluationError: for another name, or a network that cannot be used.
    """
    published = {i3d.NAME: i3d.I3dFeatures, inception.NAME: inception.InceptionFeatures}
    if name in published:
        return published[name](weights, weights_sha256, device)
    if weights is not None or weights_sha256 is not None:
        raise EvaluationError(f"--weights are for --features {' and '.join(published)}; {name} has its own")
    if name == PACKAGED:
        return ImageFeatures(device)
    if ":" not in name:
        known = ", ".join((PACKAGED, *published))
        raise EvaluationError(f"there is no feature network {name!r}; accepted: {known}, or module:attribute for your own")
    return UserFeatures(name, device)


def code_digest(network: nn.Module, module: str) -> str:
    """Return the SHA-256 of the files that define a network and its parts, PyTorch's apart, and of a module's."""
    names = {type(part).__module__ for part in network.modules()} | {module}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in names if name.partition(".")[0] != "torch"}
    sha = hashlib.sha256()
    for name, file in sorted(files.items()):
        sha.update(Path(file).read_bytes() if file else name.encode())
    return sha.hexdigest()


def digest(network: nn.Module) -> str:
    """Return the SHA-256 of the parameters and buffers of a network, with their names and shapes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
