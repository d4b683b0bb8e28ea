"""U-Nets: convolutions down to one position and up again, every resolution handed across."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinema.core.errors import ConfigError
from kinema.nn.convolution import CONVOLUTION, TRANSPOSED


@dataclass(frozen=True)
class Level:
    """One level of a U-Net: a convolution of stride 2 and padding 1 on the way down, a transposed one on the way up.

    Attributes:
        width: channels after the convolution.
        down: kernel of the convolution.
        up: kernel of the transposed convolution.
        dropout: share of the features that are dropped after it on the way up, while training.
    """

    width: int
    down: tuple[int, ...]
    up: tuple[int, ...]
    dropout: float = 0.0


def levels_down_to_one(extent: Sequence[int], widths: Sequence[int], dropouts: Sequence[float]) -> list[Level]:
    """Return levels of kernel 4 that halve every extent, and an innermost one that leaves a single position.

    Args:
        extent: of the input: two numbers for images, three for videos.
        widths: channels of every level, outermost first.
        dropouts: of every level.

    Raises:
        ConfigError: for an extent that cannot be halved so often.
    """
    halvings = len(widths) - 1
    if any(side % (1 << halvings) or side < 1 for side in extent):
        shape = "x".join(map(str, extent))
        raise ConfigError(f"a U-Net of {len(widths)} levels takes multiples of {1 << halvings}; the extent is {shape}")
    left = [side >> halvings for side in extent]
    kernel = (4,) * len(extent)
    inner = (tuple(side // 2 * 2 + 2 for side in left), tuple(side + 2 for side in left))
    shapes = [(kernel, kernel)] * halvings + [inner]
    return [Level(width, *shape, dropout) for width, shape, dropout in zip(widths, shapes, dropouts, strict=True)]


class UNet(nn.Module):
    """An encoder and a decoder with skips between them.

    The nonlinearity stands before each convolution (leaky ReLU 0.2 on the way down, ReLU on the way up) and the skips carry
    what was not yet activated. Neither the first nor the last convolution is normalised.

    Args:
        rank: 2 for images, 3 for videos.
        inputs: channels that come in.
        outputs: channels that go out, without a nonlinearity.
        levels: outermost first.
        norm: channels -> normalisation.
        inner_norm: the same for the innermost feature map, of which a batch norm has one value per clip and channel.

    References:
        Ronneberger et al., "U-Net", MICCAI 2015; Isola et al., "Image-to-Image Translation with Conditional Adversarial
        Networks", CVPR 2017, Section 6.1.1, for the form with strides.
    """

    def __init__(
        self,
        rank: int,
        inputs: int,
        outputs: int,
        levels: Sequence[Level],
        norm: Callable[[int], nn.Module],
        inner_norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        last = len(levels) - 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for number, level in enumerate(levels):
            before = [] if number == 0 else [nn.LeakyReLU(0.2)]
            channels = inputs if number == 0 else levels[number - 1].width
            convolution = CONVOLUTION[rank](channels, level.width, level.down, stride=2, padding=1)
            after = [] if number == 0 else [inner_norm(level.width) if number == last else norm(level.width)]
            self.down.append(nn.Sequential(*before, convolution, *after))
        for number, level in reversed(list(enumerate(levels))):
            channels = level.width if number == last else 2 * level.width
            target = outputs if number == 0 else levels[number - 1].width
            layers: list[nn.Module] = [nn.ReLU(), TRANSPOSED[rank](channels, target, level.up, stride=2, padding=1)]
            layers += [] if number == 0 else [norm(target)]
            layers += [nn.Dropout(level.dropout)] if level.dropout else []
            self.up.append(nn.Sequential(*layers))

    def forward(self, features: Float[Tensor, "B inputs *extent"]) -> Float[Tensor, "B outputs *extent"]:
        """Return what the outermost transposed convolution gives."""
        skips: list[Tensor] = []
        for block in self.down:
            features = block(features)
            skips.append(features)
        features = skips.pop()
        for block in self.up:
            features = block(features)
            if skips:
                features = torch.cat([skips.pop(), features], dim=1)
        return features
