"""Section 3.3 of Vondrick et al. 2016: the discriminator with a K-way softmax in place of its last layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.errors import ConfigError
from kinema.core.types import Batch
from kinema.nn.discriminators import VideoNetwork
from kinema.systems.vgan_recogniser import VGANRecogniser, VGANRecogniserConfig


def tiny(**changes) -> VGANRecogniser:
    torch.manual_seed(0)
    return VGANRecogniser(VGANRecogniserConfig(**({"frames": 8, "size": 16, "discriminator_width": 4, "classes": 3} | changes)))


def batch_of(labels: list[int]) -> Batch:
    video = torch.rand(len(labels), 3, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(video, label=torch.tensor(labels))


def test_ucf101_counts_and_cost():
    with torch.device("meta"):
        system = VGANRecogniser(VGANRecogniser.presets["paper"].config).eval()
        video = torch.zeros(1, 3, 32, 64, 64)
    assert sum(p.numel() for p in system.parameters()) == 12_679_973
    assert sum(b.numel() for b in system.buffers()) == 1_795
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert system.recognise(video).shape == (1, 101)
    assert counter.get_total_flops() // 2 == 2_082_029_568


def test_hyper_parameters_of_the_release():
    preset = VGANRecogniser.presets["paper"]
    config = preset.config
    assert (config.learning_rate, config.beta1, config.beta2, config.dropout) == (2e-4, 0.5, 0.999, 0.5)
    assert (preset.training["batch_size"], preset.training["steps"]) == (256, 1000)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_it_is_the_discriminator_but_for_the_last_layer(norm):
    system = tiny(discriminator_norm=norm).eval()
    discriminator = VideoNetwork(system.config, 1, norm).eval()
    system.features.load_state_dict(discriminator.features.state_dict())
    video = batch_of([0, 1]).video
    with torch.no_grad():
        features = discriminator.features(video)
        expected = (features[:, None] * system.head[1].weight).sum(dim=(2, 3, 4, 5)) + system.head[1].bias
        torch.testing.assert_close(system.recognise(video), expected, rtol=1e-4, atol=1e-6)
    assert type(system.head[1]) is nn.Conv3d, "the logits must be free to grow"


def test_the_objective_is_cross_entropy():
    system, batch = tiny(dropout=0.0), batch_of([0, 2, 1, 1])
    with torch.no_grad():
        objective = system.recognition_objective(batch)
        logits = system.recognise(batch.video)
    expected = -logits.log_softmax(dim=1)[range(4), batch.label].mean()
    torch.testing.assert_close(objective.total, expected)
    assert objective.metrics["accuracy"] == (logits.argmax(dim=1) == batch.label).float().mean()


def test_dropout_takes_whole_channels_and_only_in_training():
    dropout = tiny().head[0]
    features = torch.ones(64, 8, 2, 4, 4)
    kept = dropout.train()(features)
    per_channel = kept.flatten(2)
    assert set(per_channel.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(per_channel.amin(dim=2), per_channel.amax(dim=2))
    assert (per_channel[..., 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert torch.equal(dropout.eval()(features), features)


@pytest.mark.parametrize("labels", [None, [0, 3]])
def test_labels_outside_the_classes_are_refused(labels):
    batch = batch_of(labels or [0, 1])
    batch = batch if labels else Batch(batch.video)
    found = "class 3, counted from 0" if labels else "no label"
    with pytest.raises(ConfigError, match=f"a clip has {found}, and vgan-recogniser is set to 3 classes; train with --classes"):
        tiny().recognition_objective(batch)


def test_initial_weights():
    system = tiny(discriminator_width=32)
    assert system.head[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not system.head[1].bias.any()
    torch.testing.assert_close(
        F.softmax(system.eval().recognise(batch_of([0]).video), dim=1), torch.full((1, 3), 1 / 3), atol=0.1, rtol=0
    )
