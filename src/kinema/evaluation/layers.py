"""The convolutional layers of a trained system that look at clips, and what a position of their maps sees of the clip.

A layer is a convolution with the normalisation and activation that follow it. Offered are those that a plain chain of
convolutions, pools and pointwise steps leads to from the clip: for these alone a position of the map sees one box of the clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from kinema.core.errors import EvaluationError, accepted
from kinema.core.shape import ClipShape
from kinema.core.system import System

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
GENERATING = (nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLS = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
POINTWISE = (
    *(nn.Identity, nn.BatchNorm2d, nn.BatchNorm3d, nn.Dropout, nn.Dropout2d, nn.Dropout3d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Tanh),
)
COLOURS = 3
PREFERRED = "encoder"  # what the paper's Figure 6 shows


@dataclass(frozen=True)
class ReceptiveField:
    """What positions of a map see of the input: position i the `extent` elements from `start + i * stride` on, per axis.

    The axes are those of the input: height and width, for a space-time layer frames before them. A negative start is padding.
    """

    extent: tuple[int, ...]
    stride: tuple[int, ...]
    start: tuple[int, ...]

    def through(self, step: Any) -> "ReceptiveField":
        """Return the field of the map that a convolution or pool makes out of this one's."""
        rank = len(self.extent)
        kernel, stride = _each(step.kernel_size, rank), _each(step.stride, rank)
        dilation = _each(getattr(step, "dilation", 1), rank)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = [r // 2 for r in reach] if step.padding == "same" else [0] * rank
        padding = padding if isinstance(step.padding, str) else _each(step.padding, rank)
        return ReceptiveField(
            tuple(e + r * s for e, r, s in zip(self.extent, reach, self.stride, strict=True)),
            tuple(s * t for s, t in zip(self.stride, stride, strict=True)),
            tuple(b - p * s for b, p, s in zip(self.start, padding, self.stride, strict=True)),
        )

    def box(self, place: Sequence[int]) -> list[tuple[int, int]]:
        """Return where what a position sees begins and ends along every axis; it may reach beyond the input."""
        first = [b + i * s for b, i, s in zip(self.start, place, self.stride, strict=True)]
        return [(low, low + extent) for low, extent in zip(first, self.extent, strict=True)]


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it pointwise; its channels are the units.

    Attributes:
        name: of its module in the system.
        steps: everything from the clip to its map, in order.
        channels: units.
        map_shape: positions along frames, height and width, or height and width where it sees one picture.
        field: what a position sees.
    """

    name: str
    steps: nn.Sequential
    channels: int
    map_shape: tuple[int, ...]
    field: ReceptiveField

    @property
    def moving(self) -> bool:
        """Whether it looks at space and time; else at a picture, the first frame."""
        return len(self.map_shape) == 3

    @property
    def positions(self) -> int:
        """Positions of the map."""
        return prod(self.map_shape)

    def view(self, clips: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "..."]:
        """Return what the layer's network looks at, in [-1, 1]: clips B 3 T H W, or their first frames B 3 H W."""
        video = clips.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)  # channels last, which is quicker on a processor
        return video if self.moving else video[:, :, 0]


def layers_of(system: System[Any]) -> list[Layer]:
    """Return the layers whose units can be shown, from input to output, of every network of the system that looks at clips."""
    found: list[Layer] = []
    for name, network in system.named_children():
        kinds = [part for part in network.modules() if isinstance(part, (*CONVOLUTIONS, *GENERATING))]
        if kinds and isinstance(kinds[0], CONVOLUTIONS) and kinds[0].in_channels == COLOURS:
            found += _chain(name, network, kinds[0], system.clip_shape)
    return found


def find_layer(layers: Sequence[Layer], name: str | None, owner: str) -> Layer:
    """Return the layer of a name, or without one the last hidden layer of the encoder, else of the first network.

    Args:
        layers: of `layers_of`.
        name: of a module.
        owner: how a person calls the system.

    Raises:
        EvaluationError: when there is no such layer, or none at all; names the nearest and all that there are.
    """
    if not layers:
        raise EvaluationError(f"{owner} has no network of convolutions that looks at clips, so it has no units to show")
    if name is None:
        networks = [layer.name.partition(".")[0] for layer in layers]
        chosen = PREFERRED if PREFERRED in networks else networks[0]
        own = [layer for layer, network in zip(layers, networks, strict=True) if network == chosen]
        return next((layer for layer in reversed(own) if layer.positions > 1), own[-1])  # one position: the output
    by_name = {layer.name: layer for layer in layers}
    if name not in by_name:
        raise EvaluationError(f"{owner} has no convolutional layer {name!r}; {accepted(name, by_name)}")
    return by_name[name]


def _chain(name: str, network: nn.Module, first: nn.Module, shape: ClipShape) -> list[Layer]:
    """Watch a network look at an empty clip, and follow the chain of its steps for as long as it is one."""
    rank = 3 if isinstance(first, nn.Conv3d) else 2
    parts = list(_parts(name, network))
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def noting(part: str):
        def note(module: nn.Module, taken: tuple[Tensor, ...], made: Tensor) -> None:
            calls.append((part, module, taken[0], made))

        return note

    device = next(network.parameters()).device
    extents = (shape.frames, shape.height, shape.width)[-rank:]
    clip = torch.zeros(1, COLOURS, *extents, device=device)
    hooks = [module.register_forward_hook(noting(part)) for part, module in parts]
    try:
        with torch.inference_mode():
            network(clip)
    finally:
        for hook in hooks:
            hook.remove()
    found: list[Layer] = []
    steps: list[nn.Module] = []
    field, seen, goes_on = ReceptiveField((1,) * rank, (1,) * rank, (0,) * rank), clip, False
    for part, module, taken, made in calls:
        windowed = isinstance(module, (*CONVOLUTIONS, *POOLS))
        if taken is not seen or not (windowed or isinstance(module, POINTWISE)):
            break
        field, seen = field.through(module) if windowed else field, made
        steps.append(module)
        if isinstance(module, CONVOLUTIONS):
            name_of_block = _block(name, part, network)
            found.append(Layer(name_of_block, nn.Sequential(*steps), made.shape[1], tuple(made.shape[2:]), field))
        elif goes_on and not windowed:
            found[-1].steps.append(module)
        goes_on = isinstance(module, CONVOLUTIONS) or (goes_on and not windowed)
    return found


def _parts(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the steps of a network: modules without children. A convolution under spectral norm has some, and is a step."""
    children = [] if isinstance(module, CONVOLUTIONS) else list(module.named_children())
    if not children:
        yield name, module
    for child, part in children:
        yield from _parts(f"{name}.{child}", part)


def _block(root: str, part: str, network: nn.Module) -> str:
    """Return the name of the largest part of a network that holds this convolution and no other, and no pool."""
    while (above := part.rpartition(".")[0]) not in ("", root):
        inside = network.get_submodule(above.removeprefix(f"{root}."))
        if sum(isinstance(module, (*CONVOLUTIONS, *POOLS)) for module in inside.modules()) > 1:
            break
        part = above
    return part


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
