"""Paths between data and noise by hand, and their samplers beside those of diffusers."""

import math
from importlib import import_module
from types import ModuleType

import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.core.seeds import normal_codes
from kinema.nn.paths import (
    Model,
    SeededNoise,
    Step,
    ancestral,
    cosine_path,
    ddim,
    edm_path,
    guided,
    linear_beta_path,
    sample,
    straight_path,
)

PATHS = {
    "straight": straight_path(),
    "linear betas": linear_beta_path(),
    "cosine": cosine_path(),
    "EDM": edm_path(),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
NAMES = ("ancestral", "ddim", "euler", "heun", "dpm-solver")


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def model_of(path, kind="noise", limit=None) -> Model:
    """A network whose answers depend on x and on time, each row on itself alone."""
    return Model(path, kind, lambda x, times: 0.9 * x.tanh() + times.reshape(-1, *[1] * (x.dim() - 1)).cos() * 0.2, limit)


# --- Paths --------------------------------------------------------------------------------------------------------------------


@every_path
@pytest.mark.parametrize("kind", ["clean", "noise", "velocity"])
def test_clip_and_noise_are_found_again_from_what_a_network_predicts(path, kind):
    clean, noise = pair(5, 3, 2, 4, 4)
    times = path.grid(6)[1:-1]
    x = path.mix(clean, noise, times)
    found = path.solve(kind, x, path.target(kind, clean, noise, times), times)
    torch.testing.assert_close(found[0], clean, atol=2e-3, rtol=0)  # EDM: a clip under noise of 60 in fp32
    torch.testing.assert_close(found[1], noise, atol=2e-3, rtol=0)


@every_path
def test_rates_are_the_derivatives_by_the_coordinate(path):
    times = path.grid(20)[2:-2].double()
    a, b = path.at(times - 1e-3), path.at(times + 1e-3)
    span, middle = b.coordinate - a.coordinate, path.at(times)
    for name in ("alpha", "sigma"):
        slope = (getattr(b, name) - getattr(a, name)) / span
        torch.testing.assert_close(slope, getattr(middle, f"{name}_rate"), atol=2e-3, rtol=0, check_dtype=False)


def test_coefficients_by_hand():
    flow = straight_path().at(torch.tensor([0.25]))
    assert (flow.alpha.item(), flow.sigma.item()) == (0.75, 0.25)
    cosine = cosine_path().at(torch.tensor([0.5]))
    expected = math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    assert cosine.alpha.item() == pytest.approx(expected)
    ddpm = linear_beta_path().at(torch.tensor([0.0, 0.001, 0.002, 1.0]))
    second = 1e-4 + (0.02 - 1e-4) / 999
    torch.testing.assert_close(ddpm.alpha.square()[:3], torch.tensor([1, 1 - 1e-4, (1 - 1e-4) * (1 - second)]))
    assert ddpm.alpha.square()[3].item() == pytest.approx(4.04e-5, rel=2e-3)
    assert ddpm.sigma[1].item() == pytest.approx(0.01)


@pytest.mark.parametrize("path", [straight_path(), linear_beta_path(), cosine_path()], ids=["straight", "linear", "cosine"])
def test_a_path_leads_from_the_clip_to_noise(path):
    clean, noise = pair(1, 3, 8)
    torch.testing.assert_close(path.mix(clean, noise, torch.zeros(1)), clean)
    torch.testing.assert_close(path.mix(clean, noise, torch.ones(1)), noise, atol=0.03, rtol=0)


def test_grids_by_hand():
    assert straight_path().grid(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert straight_path(3.0).grid(2).tolist() == [1, 0.75, 0]
    torch.testing.assert_close(linear_beta_path().grid(4), torch.tensor([0.751, 0.501, 0.251, 0.001, 0]))
    torch.testing.assert_close(linear_beta_path().grid(1000), torch.arange(1000, -1, -1) / 1000)
    edm = edm_path().grid(18)
    assert edm.tolist()[:2] == pytest.approx([80, 57.586], rel=1e-4)
    assert edm.tolist()[-2:] == pytest.approx([0.002, 0])
    assert len(edm) == 19
    with pytest.raises(ConfigError, match=r"^steps is 1001; this path has 1000, and no more can be taken$"):
        linear_beta_path().grid(1001)


# --- Sampling -----------------------------------------------------------------------------------------------------------------


def test_a_row_of_noise_depends_on_its_own_seed_alone():
    three, one = SeededNoise([4, 9, 6], (2, 3)), SeededNoise([9], (2, 3))
    first, second = three(), three()
    assert torch.equal(first, normal_codes([4, 9, 6], 2, 3))
    assert torch.equal(first[1], one()[0])
    assert torch.equal(second[1], one()[0])
    assert not torch.equal(first, second)
    assert SeededNoise([], (2, 3))().shape == (0, 2, 3)


@pytest.mark.parametrize("sampler", NAMES)
@every_path
def test_a_sample_does_not_depend_on_the_batch(path, sampler):
    seeds, model = [3, 1, 2], model_of(path, limit=1.0)

    def made(seeds):
        noise = SeededNoise(seeds, (3, 4))
        start = noise() * path.at(path.grid(8)[0]).sigma
        return sample(model, start, 8, sampler, eta=1.0, noise=noise)

    assert torch.equal(made(seeds)[1:2], made([1]))


def test_guidance_of_one_is_the_condition_bit_for_bit_and_more_moves_every_channel():
    x, times = pair(2, 5, 4)[0], torch.tensor([0.3, 0.7])
    with_condition, without = (lambda x, t: 0.1 * x.sin()), (lambda x, t: x.cos())
    assert torch.equal(guided(without, (with_condition, 1.0))(x, times), with_condition(x, times))
    assert torch.equal(guided(without, (with_condition, 0.0))(x, times), without(x, times))
    expected = x.cos() + 3.0 * (0.1 * x.sin() - x.cos())
    torch.testing.assert_close(guided(without, (with_condition, 3.0))(x, times), expected)


@every_path
def test_ddim_with_all_its_noise_draws_from_the_posterior_on_every_path(path):
    """As `Sampling.eta` promises; with DDPM's own variance, EDM's path would have no noise at all."""
    x, fresh = pair(2, 40)
    now, then = path.grid(4)[1:3]
    model = model_of(path)
    clean, noise = model.solve(x, now)
    here, there = path.at(now), path.at(then)
    made, mean = (
        step(Step(model, x, clean, noise, here, there, then, True, None, 1.0, lambda: fresh)) for step in (ddim, ancestral)
    )
    deviation = there.sigma * (1 - (here.alpha * there.sigma / (there.alpha * here.sigma)).square()).sqrt()
    assert deviation > 0.1 * there.sigma
    torch.testing.assert_close(made, mean + deviation * fresh, atol=1e-4, rtol=1e-4)


def test_predicted_clips_stay_within_the_limit_and_the_noise_goes_with_them():
    path, x, time = linear_beta_path(), 3 * pair(2, 40)[0], torch.tensor(0.4)
    clean, noise = model_of(path, limit=1.0).solve(x, time)
    assert clean.abs().max() == 1
    torch.testing.assert_close(path.mix(clean, noise, time.expand(2)), x)


def test_what_is_known_is_put_in_before_every_step():
    path, noise, right = straight_path(), pair(1, 6)[1], torch.arange(6) >= 3
    seen = []

    def known(x, time):
        seen.append(time.item())
        return torch.where(right, path.mix(torch.full_like(x, 0.5), noise, time.expand(1)), x)

    def predict(x, times):  # that half is 0.5, and the other is to become its mean
        clean = torch.where(right, x - times * noise, x[:, 3:].mean()) / (1 - times).clamp_min(1e-6)
        return torch.where(times < 1, clean, torch.zeros_like(x))

    made = sample(Model(path, "clean", predict), noise, 5, "ddim", known=known)
    assert seen == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    torch.testing.assert_close(made[:, 3:], torch.full((1, 3), 0.5))


def test_the_walk_can_be_watched():
    steps, path = [], straight_path()
    end = sample(model_of(path, "velocity"), pair(1, 4)[0], 3, "euler", trace=lambda *step: steps.append(step))
    assert [number for number, _, _ in steps] == [0, 1, 2]
    assert torch.equal(steps[-1][1], end)
    torch.testing.assert_close(steps[-1][2], end)  # Euler's last step goes straight to the predicted clip


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_sampler_that_draws_wants_noise(sampler):
    with pytest.raises(ValueError, match="draws noise"):
        sample(model_of(linear_beta_path()), pair(1, 4)[0], 4, sampler, eta=1.0)


# --- Beside diffusers ---------------------------------------------------------------------------------------------------------

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SEEDS = [5, 6]


def walk_of(scheduler, start: torch.Tensor, model: Model, **drawing) -> torch.Tensor:
    """Walk as the independent library does; its step t is time (t + 1) / 1000."""
    x = start
    for step in scheduler.timesteps:
        times = ((step.float() + 1) / 1000).expand(len(x))
        x = scheduler.step(model.predict(x, times), step, x, **drawing).prev_sample
    return x


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    """The library, which takes two seconds to import; nobody who only collects tests waits for it."""
    return import_module("diffusers")


def streams() -> tuple[torch.Tensor, SeededNoise, list[torch.Generator]]:
    """The first draw, what goes on from there, and the same for the library."""
    noise, generators = SeededNoise(SEEDS, (3, 8)), [torch.Generator().manual_seed(seed) for seed in SEEDS]
    start = noise()
    for generator in generators:
        torch.randn(3, 8, generator=generator)
    return start, noise, generators


@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_ancestral_steps_are_those_of_the_library(diffusers, steps):
    start, noise, generators = streams()
    model = model_of(linear_beta_path(), limit=1.0)
    scheduler = diffusers.DDPMScheduler(**BETAS, variance_type="fixed_large", clip_sample=True, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    expected = walk_of(scheduler, start, model, generator=generators)
    torch.testing.assert_close(sample(model, start, steps, "ancestral", noise=noise), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_steps_of_ddim_are_those_of_the_library(diffusers, steps, eta):
    start, noise, generators = streams()
    model = model_of(linear_beta_path(), limit=1.0)
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=True, timestep_spacing="leading", set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    expected = walk_of(scheduler, start, model, eta=eta, use_clipped_model_output=True, generator=generators)
    torch.testing.assert_close(sample(model, start, steps, "ddim", eta=eta, noise=noise), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [5, 20])
def test_steps_of_dpm_solver_are_those_of_the_library(diffusers, steps):
    start, _, _ = streams()
    path = linear_beta_path()
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, solver_order=2, final_sigmas_type="zero")
    scheduler.set_timesteps(timesteps=(path.grid(steps)[:-1] * 1000 - 1).round().int().tolist())
    expected = walk_of(scheduler, start, model_of(path))
    torch.testing.assert_close(sample(model_of(path), start, steps, "dpm-solver"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_steps_on_the_straight_path_are_those_of_the_library(diffusers, shift):
    start, _, _ = streams()
    path = straight_path(shift)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist())
    x = start
    for step in scheduler.timesteps:
        x = scheduler.step(model_of(path, "velocity").predict(x, (step / 1000).expand(len(x))), step, x).prev_sample
    torch.testing.assert_close(sample(model_of(path, "velocity"), start, 8, "euler"), x, atol=1e-5, rtol=0)
