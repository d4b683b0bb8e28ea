"""Layers of networks that look at clips, and what their positions see."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from kinema.core.errors import EvaluationError
from kinema.evaluation.layers import Layer, ReceptiveField, find_layer, layers_of
from kinema.systems import SYSTEMS
from small_watchers import Watching, WatchingConfig


def vgan(name: str, **changes: object):
    config_class = SYSTEMS[name].config_class
    return SYSTEMS[name](config_class(width=2, discriminator_width=2, code=4, **changes)).eval()


def test_the_receptive_fields_of_vgan() -> None:
    """Kernel 4, stride 2, padding 1 three times: 4, 10, 22 pixels and frames, one position every 2, 4, 8 (by hand)."""
    layers = layers_of(vgan("vgan"))
    assert [layer.name for layer in layers] == [*(f"discriminator.features.{n}" for n in range(4)), "discriminator.last"]
    for layer, extent, stride, start in zip(layers, (4, 10, 22, 46), (2, 4, 8, 16), (-1, -3, -7, -15), strict=False):
        assert layer.field == ReceptiveField((extent,) * 3, (stride,) * 3, (start,) * 3)
    assert [layer.map_shape for layer in layers] == [(16, 32, 32), (8, 16, 16), (4, 8, 8), (2, 4, 4), (1, 1, 1)]
    assert [layer.channels for layer in layers] == [2, 4, 8, 16, 1]


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_layer_ends_with_its_activation(norm: str) -> None:
    """The steps of a layer give what its module gives, whatever normalises it."""
    system = vgan("vgan", discriminator_norm=norm)
    video = torch.randn(2, 3, 32, 64, 64)
    features = system.discriminator.features
    for number, layer in enumerate(layers_of(system)[:4]):
        with torch.inference_mode():
            assert torch.equal(layer.steps(video), features[: number + 1](video))


def test_encoders_of_pictures_are_found_and_shown_first() -> None:
    layers = layers_of(vgan("vgan-future", encoder_output="map"))
    pictures = [layer for layer in layers if layer.name.startswith("encoder")]
    assert [layer.map_shape for layer in pictures] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert not any(layer.moving for layer in pictures)
    assert find_layer(layers, None, "run").name == "encoder.features.3"
    assert find_layer(layers_of(vgan("vgan")), None, "run").name == "discriminator.features.3"
    assert find_layer(layers_of(vgan("vgan-autoencoder")), None, "run").name == "encoder.features.3"


def test_a_wrong_name_is_told_the_nearest() -> None:
    layers = layers_of(vgan("vgan"))
    with pytest.raises(
        EvaluationError, match=r"mine has no convolutional layer 'discriminator.feature.2'; did you mean"
    ) as told:
        find_layer(layers, "discriminator.feature.2", "mine")
    assert all(layer.name in str(told.value) for layer in layers)
    with pytest.raises(EvaluationError, match="no network of convolutions that looks at clips"):
        find_layer(layers_of(Watching(nn.Linear(3, 3))), None, "mine")


def layers_in(*steps: nn.Module, frames: int = 24, size: int = 24) -> list[Layer]:
    return layers_of(Watching(nn.Sequential(*steps), WatchingConfig(frames, size, size)))


@pytest.mark.parametrize(
    "steps",
    [
        (nn.Conv3d(3, 2, (3, 5, 1), stride=(1, 2, 3), padding=(1, 0, 2)), nn.ELU(), nn.Conv3d(2, 2, 3, stride=2)),
        (nn.Conv2d(3, 2, 3, padding="same"), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, dilation=2, padding=1)),
        (nn.Conv2d(3, 2, 4, padding="valid"), nn.Conv2d(2, 2, (2, 3), stride=(3, 2), padding=(0, 1)), nn.Sigmoid()),
    ],
)
def test_fields_are_where_the_gradient_is(steps: tuple[nn.Module, ...]) -> None:
    """What a position depends on, by automatic differentiation, is the box that kernels and strides give."""
    torch.manual_seed(0)
    for layer in layers_in(*steps):
        network = layer.steps.double()
        clip = torch.rand(1, 3, *(24,) * len(layer.map_shape), dtype=torch.double, requires_grad=True)
        for place in ([side // 2 for side in layer.map_shape], [0] * len(layer.map_shape)):
            (gradient,) = torch.autograd.grad(network(clip)[(0, 0, *place)], clip)
            marked = torch.nonzero(gradient[0].abs().sum(dim=0)).numpy()
            box = [(max(low, 0), min(high, 24)) for low, high in layer.field.box(place)]
            if any(place):
                assert list(zip(marked.min(axis=0), marked.max(axis=0) + 1, strict=True)) == box
            else:  # at the corner holes and padding may take the place of what the box allows
                assert all((low <= seen).all() and (seen < high).all() for seen, (low, high) in zip(marked.T, box, strict=True))


class Residual(nn.Module):
    """A step around two convolutions, then a third."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, image):
        entered = self.enter(image)
        return self.two(entered + self.one(entered))


class Branches(nn.Module):
    """Two convolutions of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.one(image) + self.two(image)


def test_only_what_a_plain_chain_leads_to_is_offered() -> None:
    """After a sum or a normalisation over the whole picture, a position sees no single box."""
    assert [layer.name for layer in layers_in(Residual())] == ["watcher.0.enter", "watcher.0.one"]
    assert [layer.name for layer in layers_in(Branches())] == ["watcher.0.one"]
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    assert [layer.name for layer in layers_in(first, nn.InstanceNorm2d(4), second)] == ["watcher.0"]
    assert [layer.name for layer in layers_in(first, nn.Flatten(2), nn.Conv1d(4, 4, 3))] == ["watcher.0"]
    assert layers_in(nn.ConvTranspose2d(3, 4, 3), nn.Conv2d(4, 4, 3)) == []
    assert layers_in(nn.Conv2d(4, 4, 3)) == []  # of codes, not of colours


def test_a_pool_ends_a_layer() -> None:
    blocks = OrderedDict(
        plain=nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
        pooled=nn.Sequential(spectral_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.ReLU()),
        last=nn.Conv2d(4, 5, 3),
    )
    layers = layers_of(Watching(nn.Sequential(blocks), WatchingConfig(2, 24, 24)))
    assert [layer.name for layer in layers] == ["watcher.plain", "watcher.pooled.0", "watcher.last"]
    assert [layer.map_shape for layer in layers] == [(24, 24), (24, 24), (10, 10)]
    assert [len(layer.steps) for layer in layers] == [2, 4, 8]
