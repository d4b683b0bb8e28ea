"""U-Nets against arithmetic and against what they must not lose."""

import pytest
import torch
from torch import nn

from kinema.core.errors import ConfigError
from kinema.nn.unet import Level, UNet, levels_down_to_one


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_kernels_leave_one_position_and_come_back_from_it() -> None:
    levels = levels_down_to_one((32, 64, 80), [32, 64, 128, 256, 256], [0, 0, 0, 0.5, 0.5])
    assert [level.down for level in levels] == [(4, 4, 4)] * 4 + [(4, 6, 6)]
    assert [level.up for level in levels] == [(4, 4, 4)] * 4 + [(4, 6, 7)]


@pytest.mark.parametrize("extent", [(8, 8, 8), (8, 16, 20), (4, 32, 12), (32, 32), (16, 24)])
def test_a_video_or_image_comes_out_in_its_size(extent: tuple[int, ...]) -> None:
    rank = len(extent)
    network = UNet(
        rank,
        5,
        3,
        levels_down_to_one(extent, [2, 4, 4], [0, 0, 0]),
        (nn.BatchNorm2d, nn.BatchNorm3d)[rank - 2],
        lambda width: nn.GroupNorm(1, width),
    )
    inner: list[torch.Size] = []
    network.down[-1].register_forward_hook(lambda _module, _inputs, output: inner.append(output.shape))
    assert network(torch.randn(2, 5, *extent)).shape == (2, 3, *extent)
    assert inner == [(2, 4, *[1] * rank)]


def test_counts_by_hand() -> None:
    levels = [Level(4, (4, 4), (4, 4)), Level(6, (4, 4), (4, 4))]
    network = UNet(2, 3, 1, levels, nn.BatchNorm2d, nn.BatchNorm2d)
    down = (3 * 4 * 16 + 4) + (4 * 6 * 16 + 6) + 2 * 6
    up = (6 * 4 * 16 + 4) + 2 * 4 + (2 * 4 * 1 * 16 + 1)
    assert parameters(network) == down + up


def test_the_finest_skip_is_handed_across_before_it_is_activated() -> None:
    """With the decoder's inner branch at zero, what arrives is the skip, its negative sign kept."""
    network = UNet(2, 1, 1, levels_down_to_one((4, 4), [1, 1], [0, 0]), lambda _: nn.Identity(), lambda _: nn.Identity())
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    seen: list[torch.Tensor] = []
    network.up[-1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    nn.init.constant_(network.get_parameter("down.0.0.bias"), -3.0)
    network(torch.zeros(1, 1, 4, 4))
    assert seen[0][0, :, 0, 0].tolist() == [-3.0, 0.0]


def test_one_clip_trains_only_where_the_inner_norm_does_not_need_a_batch() -> None:
    levels = levels_down_to_one((4, 8, 8), [2, 2], [0, 0])
    alone = torch.randn(1, 1, 4, 8, 8)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        UNet(3, 1, 1, levels_down_to_one((2, 4, 4), [2, 2], [0, 0]), nn.BatchNorm3d, nn.BatchNorm3d)(alone[:, :, :2, :4, :4])
    assert UNet(3, 1, 1, levels, nn.BatchNorm3d, lambda width: nn.GroupNorm(1, width))(alone).shape == alone.shape


def test_dropout_is_active_in_training_alone() -> None:
    network = UNet(2, 1, 1, levels_down_to_one((8, 8), [4, 4], [0, 0.5]), nn.BatchNorm2d, lambda width: nn.GroupNorm(1, width))
    clip = torch.randn(2, 1, 8, 8)
    assert not torch.equal(network(clip), network(clip))
    network.eval()
    assert torch.equal(network(clip), network(clip))


@pytest.mark.parametrize("extent", [(6, 8, 8), (2, 8, 8)])
def test_an_extent_that_cannot_be_halved_is_refused(extent: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=f"multiples of 4; the extent is {'x'.join(map(str, extent))}"):
        levels_down_to_one(extent, [1, 1, 1], [0, 0, 0])
