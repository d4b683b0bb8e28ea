"""Samplers given the exact answer of a known distribution return that distribution."""

import pytest
import torch

from kinema.nn.paths import GaussianPath, Model, SeededNoise, cosine_path, edm_path, linear_beta_path, sample, straight_path

# --- One Gaussian -------------------------------------------------------------------------------------------------------------

MEAN, SPREAD = 2.0, 0.5


def model_of_gaussian(path: GaussianPath) -> Model:
    """E[x0 | x_t] of data N(2, 0.5^2)."""

    def predict(x, times):
        c = path.coefficients(times, x)
        variance = (c.alpha * SPREAD) ** 2 + c.sigma**2
        return MEAN + c.alpha * SPREAD**2 / variance * (x - c.alpha * MEAN)

    return Model(path, "clean", predict)


def moments(path: GaussianPath, sampler: str, steps: int, eta: float = 0.0) -> tuple[float, float]:
    """Return mean and standard deviation of all samples, exactly: a walk is affine in its draws.

    Element k of x is driven by draw k alone and the last by none, so it is the mean, and the others' squares add up.
    """
    draws = iter(torch.eye(steps + 1, steps + 2)[:, None])
    start = next(draws) * path.at(path.grid(steps)[0]).sigma
    made = sample(model_of_gaussian(path), start, steps, sampler, eta=eta, noise=lambda: next(draws))[0]
    return made[-1].item(), (made[:-1] - made[-1]).norm().item()


@pytest.mark.parametrize(
    ("path", "sampler", "eta", "expected"),
    [
        (straight_path(), "euler", 0, {5: 0.369, 10: 0.431, 25: 0.471, 50: 0.485, 100: 0.493, 400: 0.498}),
        (straight_path(), "heun", 0, {5: 0.459, 10: 0.491, 25: 0.499, 50: 0.500, 100: 0.500, 400: 0.500}),
        (linear_beta_path(), "ddim", 0, {10: 0.374, 20: 0.434, 50: 0.472, 100: 0.486, 1000: 0.4985}),
        (linear_beta_path(), "ddim", 1, {10: 0.334, 20: 0.395, 50: 0.442, 100: 0.466, 1000: 0.496}),
        (edm_path(), "heun", 0, {18: 0.528}),
    ],
    ids=["flow Euler", "flow Heun", "DDIM 0", "DDIM 1", "EDM Heun"],
)
def test_the_spread_of_a_gaussian_is_what_so_many_steps_make_of_it(path, sampler, eta, expected):
    """Table of the spec sheet, section 8; a grid that is off by one misses it (below)."""
    found = {steps: moments(path, sampler, steps, eta) for steps in expected}
    assert {steps: spread for steps, (_, spread) in found.items()} == pytest.approx(expected, abs=0.005)
    assert all(mean == pytest.approx(MEAN, abs=0.015) for mean, _ in found.values())


@pytest.mark.parametrize(
    ("path", "sampler", "steps", "expected"),
    [(straight_path(), "euler", 5, 0.369), (straight_path(), "heun", 5, 0.459), (linear_beta_path(), "ddim", 10, 0.374)],
)
@pytest.mark.parametrize("wrong", [slice(1, None), slice(None, -1)], ids=["starts late", "ends early"])
def test_a_grid_that_is_off_by_one_misses_the_spread(path, sampler, steps, expected, wrong):
    off = GaussianPath(path.name, path.at, lambda wanted: path.grid(wanted + 1)[wrong])
    mean, spread = moments(off, sampler, steps)
    assert abs(spread - expected) > 0.006 or abs(mean - MEAN) > 0.05


# --- Two Gaussians ------------------------------------------------------------------------------------------------------------

SHARES = torch.tensor([0.3, 0.7])
CENTRES = torch.tensor([[1.5, -0.5], [-1.0, 0.8]])
COVARIANCES = torch.tensor([[[0.10, 0.06], [0.06, 0.08]], [[0.05, -0.03], [-0.03, 0.20]]])


def model_of_mixture(path: GaussianPath) -> Model:
    """E[x0 | x_t] of the mixture, exactly."""

    def predict(x, times):
        c = path.at(times[0])
        joint = c.alpha**2 * COVARIANCES + c.sigma**2 * torch.eye(2)
        gap = x[0] - c.alpha * CENTRES[:, None]  # K N 2
        solved = gap @ torch.linalg.inv(joint)
        score = SHARES.log()[:, None] - 0.5 * (gap * solved).sum(-1) - 0.5 * torch.logdet(joint)[:, None]
        clean = CENTRES[:, None] + c.alpha * solved @ COVARIANCES
        return (score.softmax(0)[..., None] * clean).sum(0)[None]

    return Model(path, "clean", predict)


CASES = {
    "ancestral": (linear_beta_path(), "ancestral", 400, 0.0),
    "ancestral, cosine": (cosine_path(), "ancestral", 400, 0.0),
    "DDIM 0": (linear_beta_path(), "ddim", 120, 0.0),
    "DDIM 1": (linear_beta_path(), "ddim", 300, 1.0),
    "DDIM, cosine": (cosine_path(), "ddim", 120, 0.0),
    "DDIM, straight": (straight_path(), "ddim", 120, 0.0),
    "Euler, straight": (straight_path(), "euler", 120, 0.0),
    "Euler, shifted": (straight_path(3.0), "euler", 120, 0.0),
    "Euler, cosine": (cosine_path(), "euler", 120, 0.0),
    "Euler, EDM": (edm_path(), "euler", 120, 0.0),
    "Heun, straight": (straight_path(), "heun", 40, 0.0),
    "Heun, linear": (linear_beta_path(), "heun", 40, 0.0),
    "Heun, EDM": (edm_path(), "heun", 40, 0.0),
    "DPM-Solver, straight": (straight_path(), "dpm-solver", 40, 0.0),
    "DPM-Solver, linear": (linear_beta_path(), "dpm-solver", 100, 0.0),
    "DPM-Solver, EDM": (edm_path(), "dpm-solver", 40, 0.0),
}


@pytest.mark.parametrize(("path", "sampler", "steps", "eta"), CASES.values(), ids=CASES)
def test_a_mixture_comes_back_with_its_modes_in_their_shares(path, sampler, steps, eta):
    """Fails without the fresh noise of the samplers that draw; single steps are compared in tests/unit/nn/test_paths.py."""
    noise = SeededNoise([1], (5000, 2))
    start = noise() * path.at(path.grid(steps)[0]).sigma
    made = sample(model_of_mixture(path), start, steps, sampler, eta=eta, noise=noise)[0]
    mode = torch.linalg.vector_norm(made[:, None] - CENTRES, dim=-1).argmin(1)
    for k in range(2):
        mine = made[mode == k]
        assert len(mine) / len(made) == pytest.approx(SHARES[k].item(), abs=0.02)
        torch.testing.assert_close(mine.mean(0), CENTRES[k], atol=0.03, rtol=0)
        torch.testing.assert_close(mine.T.cov(), COVARIANCES[k], atol=0.012, rtol=0)


# --- Order --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm-solver", 2)])
def test_twice_the_steps_divide_the_error_by_two_to_the_order(sampler, order):
    """On a stretch where nothing is singular; the answer is known in closed form."""
    path, (first, last, beyond) = cosine_path(), torch.tensor([0.8, 0.2, 0.1], dtype=torch.float64)
    a, b = path.at(first), path.at(last)
    start = torch.linspace(-1, 2, 7, dtype=torch.float64)[None]
    spreads = [((c.alpha * SPREAD) ** 2 + c.sigma**2).sqrt() for c in (a, b)]
    exact = b.alpha * MEAN + spreads[1] / spreads[0] * (start - a.alpha * MEAN)

    def error(steps: int) -> float:
        """After as many steps and before one more: a sampler's last step is of first order."""
        grid = torch.cat([torch.linspace(first, last, steps + 1, dtype=torch.float64), beyond[None]])
        visited = []
        model = model_of_gaussian(GaussianPath("stretch", path.at, lambda _: grid))
        sample(model, start, steps + 1, sampler, trace=lambda _, x, clean: visited.append(x))
        return (visited[-2] - exact).abs().max().item()

    assert error(16) / error(32) == pytest.approx(2**order, rel=0.2)
