"""DDPM (Ho et al., 2020) and DDIM (Song et al., 2021) against the papers and the release."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.types import Batch, ClipShape
from kinema.nn.paths import Model, edm_scales, linear_beta_path, sample
from kinema.systems.ddpm import DATA_DEVIATION, DDPM, complete
from kinema.systems.ddpm_networks import DDPMConfig, UNet, sinusoids

SMALL = {
    "height": 8,
    "width": 8,
    "channels": 4,
    "multipliers": (1, 2),
    "attention": (4,),
    "blocks": 1,
    "groups": 2,
    "dropout": 0.0,
}


def small(**changes) -> DDPM:
    torch.manual_seed(0)
    return DDPM(DDPMConfig(**(SMALL | {"sampler": "ddim", "sampling_steps": 4, "inpaint_passes": 1} | changes)))


def awake(system: DDPM) -> DDPM:
    """Give what starts as zero weights that can be seen."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return system.eval()


def clips(rows: int = 3, **sides: int) -> torch.Tensor:
    shape = (sides.get("frames", 1), sides.get("height", 8), sides.get("width", 8))
    return torch.rand(rows, 3, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- The network (Appendix B) -------------------------------------------------------------------------------------------------


def test_cifar10_counts_and_cost():
    with torch.device("meta"):
        network, image, time = UNet(DDPMConfig()).eval(), torch.zeros(1, 3, 32, 32), torch.zeros(1)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(image, time).shape == (1, 3, 32, 32)
    assert counter.get_total_flops() // 2 == 6_221_856_768


def test_the_network_equals_the_layer_table():
    """Channels in and out of every block of the release, `*` where self-attention follows, in the order of the pass."""
    with torch.device("meta"):
        network = UNet(DDPMConfig())

    def table(levels: nn.ModuleList) -> list[str]:
        return [
            " ".join(
                f"{block[0].convolution1.in_channels}-{block[0].convolution1.out_channels}{'*' * (len(block) - 1)}"
                for block in blocks
            )
            for blocks in levels
        ]

    assert table(network.down) == ["128-128 128-128", "128-256* 256-256*", "256-256 256-256", "256-256 256-256"]
    assert table(network.up) == [
        "512-256 512-256 512-256",
        "512-256 512-256 512-256",
        "512-256* 512-256* 384-256*",
        "384-128 256-128 256-128",
    ]
    assert [type(part).__name__ for part in network.middle] == ["ResidualBlock", "SelfAttention", "ResidualBlock"]
    assert all(layer.convolution.stride == (2, 2) for layer in network.shrink)
    assert (len(network.shrink), len(network.grow)) == (3, 3)
    assert {norm.num_groups for norm in network.modules() if isinstance(norm, nn.GroupNorm)} == {32}
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.1}
    assert [layer.out_features for layer in network.time if isinstance(layer, nn.Linear)] == [512, 512]


def test_what_starts_as_zero_and_what_does_not():
    network = UNet(DDPMConfig(**SMALL))
    assert network.last[-1].weight.abs().max() < 1e-4
    assert network.middle[0].convolution2.weight.abs().max() < 1e-4
    assert network.middle[1].last.weight.abs().max() < 1e-4
    first = network.first.weight  # uniform, of Glorot's variance
    assert first.abs().max().item() == pytest.approx((6 / (9 * (3 + 4))) ** 0.5, rel=0.1)
    assert not any(layer.bias.any() for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_the_time_is_told_in_sines_and_cosines():
    told = sinusoids(torch.tensor([0.0, 7.0]), 6)
    rates = torch.tensor([1, 1e-2, 1e-4])
    torch.testing.assert_close(
        told, torch.stack([torch.tensor([0.0, 0, 0, 1, 1, 1]), torch.cat([(7 * rates).sin(), (7 * rates).cos()])])
    )


def test_clips_have_one_axis_more():
    system = awake(small(frames=2, multipliers=(1, 2)))
    assert not any(isinstance(layer, nn.Conv2d) for layer in system.modules())
    assert any(isinstance(layer, nn.Conv3d) for layer in system.modules())
    video = clips(1, frames=2)
    changed = video.clone()
    changed[:, :, 1] *= -1
    with torch.no_grad():
        one, other = (system.network(x, torch.zeros(1)) for x in (video, changed))
    assert (one[:, :, 0] - other[:, :, 0]).abs().max() > 1e-3, "a frame must see the other"
    assert system.diffuse([1], shape=ClipShape(1, 8, 8)).shape == (1, 3, 1, 8, 8)


# --- Equations ----------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("ddpm", "4")
def test_equation_4_steps_of_noise_add_up_to_one():
    """Equation 2 taken t times has the mean and variance of Equation 4 at t; the last variance leaves 4.04e-5 of the clip."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    share, variance = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    path = linear_beta_path()
    for step, beta in enumerate(betas, 1):
        share, variance = share * (1 - beta).sqrt(), variance * (1 - beta) + beta
        if step in (1, 2, 100, 1000):
            at = path.at(torch.tensor(step / 1000))
            assert at.alpha.item() == pytest.approx(share.item(), rel=1e-5)
            assert at.sigma.item() ** 2 == pytest.approx(variance.item(), rel=1e-5)
    assert share.item() ** 2 == pytest.approx(4.04e-5, rel=2e-3)
    video = clips()
    shown = small().noised(video, 3, seed=4)
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    at = path.at(torch.tensor(0.5))
    torch.testing.assert_close(shown[0], video)
    torch.testing.assert_close(shown[1], (at.alpha * video + at.sigma * noise).clamp(-1, 1))


@pytest.mark.equation("ddpm", "7")
@pytest.mark.equation("ddpm", "11")
@pytest.mark.parametrize("step", [2, 500, 1000])
def test_equations_7_and_11_the_mean_of_the_step_before(step):
    """By both forms, the posterior's and the noise's; the fresh noise has variance beta (Section 3.2)."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    beta, alpha, bar, before = betas[step - 1], 1 - betas[step - 1], kept[step - 1], kept[step - 2]
    x, noise, fresh = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = (x - (1 - bar).sqrt() * noise) / bar.sqrt()
    by_posterior = before.sqrt() * beta / (1 - bar) * clean + alpha.sqrt() * (1 - before) / (1 - bar) * x
    by_noise = (x - beta / (1 - bar).sqrt() * noise) / alpha.sqrt()
    torch.testing.assert_close(by_posterior, by_noise)
    whole, seen = linear_beta_path(), []
    path = type(whole)(whole.name, whole.at, lambda _: torch.tensor([step, step - 1, 0]) / 1000)
    model = Model(path, "noise", lambda x, times: noise.float())
    sample(model, x.float(), 2, "ancestral", noise=lambda: fresh.float(), trace=lambda number, x, clean: seen.append(x))
    torch.testing.assert_close(seen[0].double(), by_noise + beta.sqrt() * fresh, atol=2e-3, rtol=0)


@pytest.mark.equation("ddpm", "14")
def test_equation_14_the_simple_loss():
    system, video = awake(small()), clips(4)
    torch.manual_seed(7)
    error = system.denoising_objective(Batch(video)).total
    torch.manual_seed(7)
    noise = torch.randn(4, 3, 1, 8, 8)
    steps = torch.randint(1, 1001, (4,))
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[steps - 1].float().reshape(4, 1, 1, 1, 1)
    x = bar.sqrt() * video + (1 - bar).sqrt() * noise
    said = system.network(x[:, :, 0], steps.float() - 1)  # the release counts steps from 0
    torch.testing.assert_close(error, (said - noise[:, :, 0]).square().mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.equation("ddpm", "15")
def test_equation_15_the_clip_that_is_seen_is_clamped():
    system, x = awake(small()), clips() * 3
    clean, noise = system.model(None, 1.0).solve(x, torch.tensor(0.3))
    at = system.path.at(torch.tensor(0.3))
    with torch.no_grad():
        said = system.network(x[:, :, 0], torch.full((3,), 299.0))[:, :, None]
    torch.testing.assert_close(clean, ((x - at.sigma * said) / at.alpha).clamp(-1, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(at.alpha * clean + at.sigma * noise, x)


@pytest.mark.equation("ddpm", "12")
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_equation_12_of_ddim(eta):
    a, b = (linear_beta_path().at(torch.tensor(step / 1000)).alpha.double().square() for step in (501, 251))
    x, noise, fresh = torch.randn(3, 1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
    drawn = eta * ((1 - b) / (1 - a)).sqrt() * (1 - a / b).sqrt()
    expected = b.sqrt() * clean + (1 - b - drawn**2).sqrt() * noise + drawn * fresh
    whole, seen = linear_beta_path(), []
    path = type(whole)(whole.name, whole.at, lambda _: torch.tensor([501, 251, 0]) / 1000)
    model = Model(path, "noise", lambda x, times: noise.float())
    sample(model, x.float(), 2, "ddim", eta=eta, noise=lambda: fresh.float(), trace=lambda number, x, clean: seen.append(x))
    torch.testing.assert_close(seen[0].double(), expected, atol=1e-4, rtol=0)


# --- Settings -----------------------------------------------------------------------------------------------------------------


def test_hyper_parameters_of_the_paper():
    preset = DDPM.presets["paper"]
    c, training = preset.config, preset.training
    assert (c.channels, c.multipliers, c.blocks, c.attention, c.groups, c.dropout) == (128, (1, 2, 2, 2), 2, (16,), 32, 0.1)
    assert (c.learning_rate, c.beta1, c.beta2) == (2e-4, 0.9, 0.999)
    assert (c.path, c.target, c.sampler, c.sampling_steps) == ("linear", "noise", "ancestral", 1000)
    wanted = {"batch_size": 128, "clip_gradients": 1.0, "warmup_steps": 5000, "steps": 800_000}
    assert {name: training[name] for name in wanted} == wanted
    assert 0.5 ** (128 / training["ema_samples"]) == pytest.approx(0.9999, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "straight", "target": "noise"}, "target is 'noise'; it must be velocity or clean on the straight path"),
        ({"path": "edm"}, "target is 'noise'; it must be clean on the edm path"),
        ({"height": 9}, r"clips of 1x9x8 cannot be: .* multiples of \(1, 2, 2\); try 1x8x8"),
        ({"groups": 3}, "channels is 4; it must be a multiple of groups = 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        small(**changes)


# --- Beyond the papers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        *({"path": "linear", "target": target} for target in ("noise", "velocity", "clean")),
        *({"path": "cosine", "target": target} for target in ("noise", "velocity", "clean")),
        *({"path": "straight", "target": target} for target in ("velocity", "clean")),
        {"path": "edm", "target": "clean"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_every_path_and_target_trains_and_samples(settings):
    system = awake(small(**settings))
    assert torch.isfinite(system.denoising_objective(Batch(clips())).total)
    for sampler in ("euler", "heun", "ddim", "dpm-solver"):
        made = system.diffuse([1, 2], sampling=Sampling(sampler=sampler, steps=3))
        assert torch.isfinite(made).all()
        assert made.abs().max() <= 1


def test_preconditioning_of_edm():
    """Its numbers by hand, and the error of the network is that of the clip under EDM's weight."""
    sigma = torch.tensor([0.5, 2.0])
    skip, scale = edm_scales(sigma, DATA_DEVIATION)
    torch.testing.assert_close(skip.flatten(), torch.tensor([0.5, 0.25 / 4.25]))
    torch.testing.assert_close(scale.flatten(), torch.tensor([0.5 * 0.5 / 0.5**0.5, 2 * 0.5 / 4.25**0.5]))
    system, video = awake(small(path="edm", target="clean")), clips(4)
    torch.manual_seed(3)
    error = system.denoising_objective(Batch(video)).total
    torch.manual_seed(3)
    noise = torch.randn(4, 3, 1, 8, 8)
    sigma = (-1.2 + 1.2 * torch.randn(4)).exp()
    s = sigma.reshape(4, 1, 1, 1, 1)
    clean = system.model(None, 1.0).predict(video + s * noise, sigma)
    weight = (s**2 + 0.25) / (s * 0.5) ** 2
    torch.testing.assert_close(error, (weight * (clean - video).square()).mean(), rtol=1e-4, atol=1e-5)


def test_classes_are_asked_for_and_their_null_is_the_last():
    system = awake(small(classes=3, guidance=2.0))
    assert system.needs == {"video", "label"}
    assert system.network.classes.num_embeddings == 4
    assert system.conditions == ("label",)
    plain, guided = Sampling(sampler="ddim", steps=3), Sampling(sampler="ddim", steps=3, guidance=2.0)
    label = torch.tensor([0])
    asked = system.diffuse([1], label=label, sampling=plain)
    assert not torch.equal(asked, system.diffuse([1], label=torch.tensor([2]), sampling=plain))
    assert not torch.equal(asked, system.diffuse([1], label=label, sampling=guided))
    x, times, null = clips(1), torch.tensor([0.5]), torch.tensor([3])
    assert torch.equal(system.network(x[:, :, 0], times), system.network(x[:, :, 0], times, null))
    assert torch.equal(system.model(label, 1.0).predict(x, times), system._ask(x, times, label))
    with pytest.raises(ConfigError, match=r"^the label is 3, and ddpm is set to 3 classes: 0 to 2$"):
        system.diffuse([1], label=torch.tensor([3]))
    with pytest.raises(ConfigError, match=r"^the label is 5, and ddpm"):
        system.denoising_objective(Batch(clips(2), label=torch.tensor([0, 5])))


def test_a_share_of_the_clips_trains_without_its_class():
    system = awake(small(classes=2, drop_condition=0.5))
    seen = []
    system.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[2]))
    torch.manual_seed(0)
    system.denoising_objective(Batch(clips(200), label=torch.ones(200, dtype=torch.long)))
    assert set(seen[0].tolist()) == {1, 2}
    assert (seen[0] == 2).float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_images_are_not_asked_for_frames():
    with pytest.raises(ConfigError, match=r"^clips of 4x8x8 cannot be: this ddpm makes single frames; try 1x8x8$"):
        small().diffuse([1], shape=ClipShape(4, 8, 8))


def test_the_reverse_process_is_shown_from_noise_to_the_clip():
    system = awake(small())
    shown = system.trajectory([5], 3)
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))[None]
    start = system.path.at(system.path.grid(4)[0]).sigma
    torch.testing.assert_close(shown[0], (noise * start).clamp(-1, 1))
    torch.testing.assert_close(shown[-1], system.diffuse([5]))
    assert len(shown) == 3
    guided = awake(small(classes=3))
    label, how = torch.tensor([2]), Sampling(sampler="ddim", steps=3, guidance=2.0)
    shown = guided.trajectory([5], 3, label=label, sampling=how)
    torch.testing.assert_close(shown[-1], guided.diffuse([5], label=label, sampling=how))
    assert not torch.equal(shown[-1], guided.diffuse([5], label=torch.tensor([0]), sampling=how))


def test_a_stretch_is_walked_as_often_as_asked_and_the_end_once():
    path, asked = linear_beta_path(), []
    model = Model(path, "clean", lambda x, times: asked.append(round(times[0].item(), 3)) or torch.zeros_like(x))
    video = torch.zeros(1, 3, 1, 2, 2)
    known = torch.zeros(1, 1, 1, 2, 2, dtype=torch.bool)
    how = Sampling(sampler="ancestral", steps=4)
    draws = iter(torch.randn(100, 1, 3, 1, 2, 2))
    complete(model, video, known, next(draws), lambda: next(draws), how, 2)
    assert asked == [0.751, 0.751, 0.501, 0.501, 0.251, 0.251, 0.001]
