"""Vondrick et al. 2016: layers, counts, costs and one test per equation, against the paper and its release."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.errors import ConfigError
from kinema.core.types import Batch
from kinema.nn.stillness import still_picture
from kinema.systems.vgan import (
    VGAN,
    FutureVGAN,
    FutureVGANConfig,
    Generated,
    VGANAutoencoder,
    VGANConfig,
    compose,
)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def buffers(*modules: nn.Module) -> int:
    return sum(b.numel() for module in modules for b in module.buffers())


def multiplications(run) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def unallocated(system, preset: str = "paper"):
    """Build a full-size system without memory or arithmetic: its shapes, counts and costs are exact all the same."""
    with torch.device("meta"):
        return system(system.presets[preset].config).eval()


def blank(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


@pytest.fixture(scope="module")
def paper() -> VGAN:
    return unallocated(VGAN)


@pytest.fixture
def tiny_batch() -> Batch:
    return Batch(torch.rand(4, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1)


def tiny(**changes) -> VGANConfig:
    return VGANConfig(frames=8, size=16, code=8, width=4, discriminator_width=4, **changes)


# --- Counts, shapes and costs -------------------------------------------------------------------------------------------------


def test_two_stream_counts_shapes_and_costs(paper):
    generator = paper.generator
    assert (parameters(generator), buffers(generator)) == (16_245_383, 3_848)
    assert parameters(generator.foreground.trunk) == 12_651_328
    assert parameters(generator.foreground.heads) == 12_291 + 4_097  # colours and mask
    assert parameters(generator.background) == 3_577_667
    code = blank(1, 100, 1, 1)
    assert multiplications(lambda: generator(code)) == 2_253_750_272
    assert multiplications(lambda: generator.background(code)) == 104_628_224
    assert multiplications(lambda: generator.foreground.trunk(code[:, :, None])) == 1_880_686_592
    with torch.no_grad():
        made = generator(code)
    assert made.video.shape == made.foreground.shape == (1, 3, 32, 64, 64)
    assert (made.mask.shape, made.background.shape) == ((1, 1, 32, 64, 64), (1, 3, 64, 64))


def test_layers_of_the_trunk(paper):
    kernels = [tuple(block[0].kernel_size) for block in paper.generator.foreground.trunk]
    assert kernels == [(2, 4, 4), (4, 4, 4), (4, 4, 4), (4, 4, 4)]
    features, shapes = blank(1, 100, 1, 1, 1), []
    with torch.no_grad():
        for block in paper.generator.foreground.trunk:
            features = block(features)
            shapes.append(tuple(features.shape[1:]))
    assert shapes == [(512, 2, 4, 4), (256, 4, 8, 8), (128, 8, 16, 16), (64, 16, 32, 32)]
    counts = [parameters(block[0]) for block in paper.generator.foreground.trunk]
    assert counts == [1_638_912, 8_388_864, 2_097_280, 524_352]
    counts = [parameters(block[0]) for block in paper.generator.background.trunk]
    assert counts == [819_712, 2_097_408, 524_416, 131_136]


def test_one_stream_counts():
    with torch.device("meta"):
        generator = VGAN(VGANConfig(generator_streams="one")).eval().generator
    assert (parameters(generator), buffers(generator)) == (12_663_619, 1_924)
    assert multiplications(lambda: generator(blank(1, 100, 1, 1))) == 2_082_013_184


@pytest.mark.parametrize(
    ("preset", "count", "cost"), [("paper", 11_041_473, 2_080_391_168), ("code", 11_057_858, 2_080_407_552)]
)
def test_discriminator_counts(preset, count, cost):
    discriminator = unallocated(VGAN, preset).discriminator
    assert (parameters(discriminator), buffers(discriminator)) == (count, 1_795)
    blocks = [parameters(block[0]) for block in discriminator.features]
    assert blocks == [12_352, 524_416, 2_097_408, 8_389_120]
    assert multiplications(lambda: discriminator(blank(1, 3, 32, 64, 64))) == cost


def test_small_data_discriminator_counts():
    discriminator = unallocated(VGAN, "small-data").discriminator
    assert (parameters(discriminator), buffers(discriminator)) == (11_039_681, 46_209)


@pytest.mark.parametrize(("width", "g", "d"), [(8, 525_399, 178_010), (16, 1_480_871, 700_082), (32, 4_682_055, 2_776_418)])
def test_narrow_counts(width, g, d):
    with torch.device("meta"):
        system = VGAN(VGANConfig(width=width, discriminator_width=width, discriminator_logits=2))
    assert (parameters(system.generator), parameters(system.discriminator)) == (g, d)


def test_baseline_counts():
    baseline = unallocated(VGANAutoencoder)
    assert parameters(baseline.encoder) == 12_663_588
    assert parameters(baseline) == 28_908_971
    assert buffers(baseline.encoder, baseline.generator) == 5_643
    assert multiplications(lambda: baseline.reconstruct(blank(1, 3, 32, 64, 64))) == 4_335_763_456


def test_future_counts():
    system = unallocated(FutureVGAN)
    assert (parameters(system.encoder), buffers(system.encoder)) == (3_577_636, 1_795)
    assert parameters(system.encoder, system.generator) == 19_823_019
    assert multiplications(lambda: system.continue_from(blank(1, 3, 64, 64))) == 2_358_378_496


def test_released_future_counts():
    system = unallocated(FutureVGAN, "code")
    assert parameters(system.encoder, system.generator) == 68_216_455
    assert buffers(system.encoder, system.generator) == 9_226
    assert (parameters(system.discriminator), buffers(system.discriminator)) == (44_135_810, 3_587)
    assert [parameters(block[0]) for block in system.encoder.features] == [6_272, 524_544, 2_097_664, 8_389_632]
    assert parameters(system.generator.foreground.trunk[0][0]) == 2_098_176
    assert multiplications(lambda: system.continue_from(blank(1, 3, 64, 64))) == 8_904_507_392
    assert multiplications(lambda: system.discriminator(blank(1, 3, 32, 64, 64))) == 7_918_911_488


# --- Hyper-parameters ---------------------------------------------------------------------------------------------------------


def test_hyper_parameters_and_initial_weights():
    preset = VGAN.presets["paper"]
    config = preset.config
    assert (config.learning_rate, config.beta1, config.beta2, config.mask_weight) == (2e-4, 0.5, 0.999, 0.1)
    assert (config.code, config.frames, config.size, preset.training["batch_size"]) == (100, 32, 64, 64)
    assert FutureVGAN.presets["code"].training["batch_size"] == 32
    assert FutureVGAN.presets["code"].config.mask_weight == 0
    assert VGANAutoencoder.presets["paper"].config.components == 256
    torch.manual_seed(0)
    system = VGAN(VGANConfig(width=16, discriminator_width=32))
    convolution, norm = system.discriminator.features[2][0], system.discriminator.features[2][1]
    assert convolution.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.25)
    assert norm.eps == 1e-3
    assert system.generator.foreground.trunk[1][1].eps == 1e-5
    biases = [p for name, p in system.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)


def test_fresh_networks_are_grey_and_undecided():
    """Release initialisation, batch statistics: mask near one half, real + fake loss between 1 and 3."""
    torch.manual_seed(0)
    system = VGAN(VGANConfig(width=8, discriminator_width=8)).train()
    still = torch.rand(16, 3, 1, 8, 8) * 2 - 1
    real = F.interpolate(still, size=(32, 64, 64), mode="trilinear")
    with torch.no_grad():
        made = system.generator(torch.randn(16, 100, 1, 1))
        objective = system.discriminator_objective(Batch(real))
    assert 0.45 < made.mask.mean() < 0.55
    assert made.video.std() < 0.2
    assert 1.0 < objective.total < 3.0


# --- An independent statement of the layers -----------------------------------------------------------------------------------


def deconvolve(features, weights, norm, stride, padding):
    convolve = F.conv_transpose3d if weights.weight.dim() == 5 else F.conv_transpose2d
    features = convolve(features, weights.weight, weights.bias, stride=stride, padding=padding)
    if norm is not None:
        features = F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    return features


def test_generator_equals_the_layer_table():
    torch.manual_seed(0)
    system = VGAN(VGANConfig(width=8, discriminator_width=8)).eval()
    code = torch.randn(2, 100, 1, 1)
    with torch.no_grad():
        trunk, background = system.generator.foreground.trunk, system.generator.background
        moving = F.relu(deconvolve(code[..., None], trunk[0][0], trunk[0][1], 1, 0))
        for block in trunk[1:]:
            moving = F.relu(deconvolve(moving, block[0], block[1], 2, 1))
        heads = system.generator.foreground.heads
        weights, biases = heads.weight.split([3, 1], dim=1), heads.bias.split([3, 1])
        f = torch.tanh(F.conv_transpose3d(moving, weights[0], biases[0], stride=2, padding=1))
        m = torch.sigmoid(F.conv_transpose3d(moving, weights[1], biases[1], stride=2, padding=1))
        still = F.relu(deconvolve(code, background.trunk[0][0], background.trunk[0][1], 1, 0))
        for block in background.trunk[1:]:
            still = F.relu(deconvolve(still, block[0], block[1], 2, 1))
        b = torch.tanh(deconvolve(still, background.rgb, None, 2, 1))
        expected = m * f + (1 - m) * b[:, :, None]
        made = system.generator(code)
    torch.testing.assert_close(made.video, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.mask, m)


def test_discriminator_equals_the_layer_table():
    torch.manual_seed(0)
    discriminator = VGAN(VGANConfig(width=8, discriminator_width=8)).discriminator.train()
    video = torch.randn(3, 3, 32, 64, 64)
    with torch.no_grad():
        features = video
        for depth, block in enumerate(discriminator.features):
            features = F.conv3d(features, block[0].weight, block[0].bias, stride=2, padding=1)
            if depth:
                mean = features.mean(dim=(0, 2, 3, 4), keepdim=True)
                variance = features.var(dim=(0, 2, 3, 4), correction=0, keepdim=True)
                scale, shift = (p[None, :, None, None, None] for p in (block[1].weight, block[1].bias))
                features = (features - mean) / (variance + 1e-3).sqrt() * scale + shift
            features = torch.where(features > 0, features, 0.2 * features)
        expected = (features * discriminator.last.weight).sum(dim=(1, 2, 3, 4)) + discriminator.last.bias
        torch.testing.assert_close(discriminator(video)[:, 0], expected, rtol=1e-4, atol=1e-4)


# --- Equations ----------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("vgan", "1")
@pytest.mark.parametrize("logits", [1, 2])
def test_equation_1_discriminator(tiny_batch, logits):
    system = VGAN(tiny(discriminator_logits=logits))
    torch.manual_seed(1)
    objective = system.discriminator_objective(tiny_batch)
    torch.manual_seed(1)
    with torch.no_grad():
        fake = system.make(tiny_batch).video
        if logits == 1:
            real_p, fake_p = (system.discriminator(x)[:, 0].sigmoid() for x in (tiny_batch.video, fake))
            expected = -real_p.log().mean() - (1 - fake_p).log().mean()
        else:  # the release: class 0 here is real, class 1 fake
            classes = torch.zeros(4, dtype=torch.long)
            expected = F.cross_entropy(system.discriminator(tiny_batch.video), classes)
            expected = expected + F.cross_entropy(system.discriminator(fake), classes + 1)
    torch.testing.assert_close(objective.total.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.equation("vgan", "1")
@pytest.mark.parametrize("adversary", ["non_saturating", "minimax"])
def test_equation_1_generator(tiny_batch, adversary):
    system = VGAN(tiny(adversary=adversary, mask_weight=0.0))
    torch.manual_seed(1)
    objective = system.generator_objective(tiny_batch)
    torch.manual_seed(1)
    with torch.no_grad():
        probability = system.discriminator(system.make(tiny_batch).video)[:, 0].sigmoid()
    expected = (1 - probability).log().mean() if adversary == "minimax" else -probability.log().mean()
    torch.testing.assert_close(objective.total.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.equation("vgan", "2")
def test_equation_2_by_hand():
    mask = torch.tensor([1.0, 0.0, 0.25]).reshape(3, 1, 1, 1, 1).expand(3, 1, 4, 2, 2)
    foreground, background = torch.randn(3, 3, 4, 2, 2), torch.randn(3, 3, 2, 2)
    video = compose(mask, foreground, background)
    torch.testing.assert_close(video[0], foreground[0])
    torch.testing.assert_close(video[1], background[1][:, None].expand(3, 4, 2, 2))
    assert video[1].var(dim=1).max() == 0
    torch.testing.assert_close(video[2], 0.25 * foreground[2] + 0.75 * background[2][:, None])


def test_mask_prior_is_the_mean_and_its_gradient(tiny_batch):
    system = VGAN(tiny())
    mask = torch.rand(4, 1, 8, 16, 16, requires_grad=True)
    made = Generated(tiny_batch.video, tiny_batch.video, mask, tiny_batch.video[:, :, 0])
    term = system.convince(made).terms["mask_sparsity"]
    assert term.item() == pytest.approx(0.1 * mask.mean().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(term, mask)
    torch.testing.assert_close(gradient, torch.full_like(mask, 0.1 / mask.numel()))


@pytest.mark.equation("vgan", "3")
@pytest.mark.parametrize("norm", ["l1", "squared_l2"])
def test_equation_3_first_frame(tiny_batch, norm):
    config = FutureVGANConfig(frames=8, size=16, code=8, width=4, discriminator_width=4, first_frame_norm=norm)
    system = FutureVGAN(config)
    objective = system.generator_objective(tiny_batch)
    with torch.no_grad():
        gap = system.continue_from(tiny_batch.video[:, :, 0]).video[:, :, 0] - tiny_batch.video[:, :, 0]
    expected = 10 * (gap.abs().mean() if norm == "l1" else (gap**2).mean())
    assert objective.terms["first_frame"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert set(objective.terms) == {"adversarial", "mask_sparsity", "first_frame"}


def test_real_and_generated_pass_the_discriminator_as_separate_batches(tiny_batch):
    system, sizes = VGAN(tiny()), []
    system.discriminator.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    system.discriminator_objective(tiny_batch)
    assert sizes == [4, 4]


def test_r1_is_lazy_and_counted(tiny_batch):
    system = VGAN(tiny(discriminator_norm="spectral", r1_weight=2.0, r1_every=3))
    present = ["r1" in system.discriminator_objective(tiny_batch).terms for _ in range(7)]
    assert present == [True, False, False, True, False, False, True]
    assert int(system.steps) == 7


def test_both_turns_of_a_step_share_the_generated_videos_and_their_graph(tiny_batch):
    """One forward pass of the generator per step; its gradient is that of a forward pass of its own on the same noise."""
    torch.manual_seed(0)
    system, passes = VGAN(tiny(discriminator_norm="spectral")), []
    system.generator.register_forward_hook(lambda *_: passes.append(1))
    system.generator.requires_grad_(False)  # as a trainer leaves it while the discriminator plays
    torch.manual_seed(1)
    system.discriminator_objective(tiny_batch).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in system.generator.parameters())
    system.generator.requires_grad_(True)
    system.discriminator.eval()  # spectral norm estimates stand still
    system.generator_objective(tiny_batch).total.backward()
    assert len(passes) == 1
    shared = [p.grad.clone() for p in system.generator.parameters()]

    system.zero_grad()
    torch.manual_seed(1)
    system.generator_objective(Batch(tiny_batch.video)).total.backward()  # another batch: nothing was shown for it
    assert len(passes) == 2
    for one, parameter in zip(shared, system.generator.parameters(), strict=True):
        assert torch.allclose(one, parameter.grad, rtol=1e-4, atol=1e-7)


# --- A still stream that starts from the footage (a departure) ----------------------------------------------------------------


def test_a_still_stream_that_starts_from_the_footage_shows_it_before_it_learns(tiny_batch):
    torch.manual_seed(0)
    system = VGAN(tiny(background_start="still"))
    assert list(system.stages()) == ["background", "adversarial"]
    assert list(VGAN(tiny(background_start="still", generator_streams="one")).stages()) == ["adversarial"]
    picture = still_picture([tiny_batch.video])
    assert system.fit_still([tiny_batch]) == {"still_picture": pytest.approx(picture.mean().item())}
    with torch.no_grad():
        background = system.train().make(tiny_batch).background
    assert (background - picture.clamp(-0.98, 0.98)).abs().max() < 0.2
    assert parameters(system.generator) == parameters(VGAN(tiny()).generator)


def of_two_places(shares: tuple[int, int]) -> Batch:
    """Clips that are black or white all over."""
    levels = torch.tensor([-0.9] * shares[0] + [0.9] * shares[1])
    return Batch(levels[:, None, None, None, None].repeat(1, 3, 8, 16, 16))


def test_the_code_chooses_a_place_as_often_as_clips_show_it():
    torch.manual_seed(0)
    system = VGAN(tiny(background_start="still", background_scenes=3))
    found = system.fit_still([of_two_places((12, 4))])
    assert found == {"still_picture": pytest.approx(-0.45, abs=0.02), "scenes": 2}
    with torch.no_grad():
        made = system.train().make(of_two_places((200, 200))).background.mean(dim=(1, 2, 3))
        assert abs((made > 0).float().mean() - 0.25) < 0.05  # 400 draws: a standard deviation is 0.022
    assert parameters(system.generator) == parameters(VGAN(tiny()).generator)


def test_the_streams_are_told_the_place_by_the_first_dimensions_of_the_code():
    system = VGAN(tiny(background_start="still", background_scenes=3)).eval()
    system.fit_still([of_two_places((8, 8))])
    seen = []
    system.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    system.generate(range(8))
    (code, start), plain = seen[0], system._codes(range(8))
    told, rest = code[:, :2, 0, 0], code[:, 2:]
    assert torch.equal(rest, plain[:, 2:])  # two numbers say which of two places, the rest is as it was
    assert torch.equal((told > 0).sum(dim=1), torch.ones(8, dtype=torch.long))
    assert torch.allclose(told.square().sum(dim=1), torch.tensor(2.0))
    assert torch.equal(start, system.still[told.argmax(dim=1)])
    assert {0, 1} == set(told.argmax(dim=1).tolist())


def test_footage_of_one_place_leaves_the_code_as_it_is(tiny_batch):
    one, several = (VGAN(tiny(background_start="still", background_scenes=n)).eval() for n in (1, 3))
    several.generator.load_state_dict(one.generator.state_dict())
    still = Batch(tiny_batch.video[:1].repeat(4, 1, 1, 1, 1))
    for system in (one, several):
        system.fit_still([still])
    assert torch.equal(one.generate([1, 2]), several.generate([1, 2]))


def test_places_without_pictures_of_them_are_refused():
    with pytest.raises(ConfigError, match="background_scenes above 1 needs background_start 'still'"):
        VGAN(tiny(background_scenes=2))
    with pytest.raises(ConfigError, match="from 1 to the code's dimensions"):
        VGAN(tiny(background_start="still", background_scenes=9))


def test_a_future_whose_still_stream_starts_from_the_image_shows_it_before_it_learns(tiny_batch):
    torch.manual_seed(0)
    image = tiny_batch.video[:, :, 0]
    for start, error in (("still", 0.2), ("grey", 0.9)):
        system = FutureVGAN(FutureVGANConfig(frames=8, size=16, code=8, width=4, background_start=start))
        with torch.no_grad():
            background = system.train().continue_from(image).background
        assert ((background - image.clamp(-0.98, 0.98)).abs().max() < error) == (start == "still")
