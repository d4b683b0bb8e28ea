r"""Gaussian paths between data and noise, and samplers along them.

A path says how a clip x0 turns into noise: x_t = alpha(t) x0 + sigma(t) noise. DDPM, DDIM, rectified flow and EDM are one
object with different alpha and sigma; x0, the noise and the velocity are linear maps of one another once x_t is given, so a
network may predict whichever it learns best and every sampler works with all of them.

References:
    Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Song et al., "Denoising Diffusion Implicit Models",
    ICLR 2021; Liu et al., "Flow Straight and Fast", ICLR 2023; Karras et al., "Elucidating the Design Space of Diffusion-Based
    Generative Models", NeurIPS 2022; Lu et al., "DPM-Solver++", 2022.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampler
from kinema.core.seeds import normal_codes

Target = Literal["clean", "noise", "velocity"]
Times = Float[Tensor, "B"]
Predict = Callable[[Tensor, Times], Tensor]
"""(x_t, t) -> what the network was trained to predict."""


@dataclass(frozen=True)
class Coefficients:
    """Of one path at given times.

    Attributes:
        alpha: share of the clip.
        sigma: share of the noise.
        alpha_rate: derivative of alpha by the coordinate.
        sigma_rate: derivative of sigma by the coordinate.
        coordinate: by which the velocity is a derivative: time on the straight path, sigma on EDM's, and the angle of
            (alpha, sigma) on the others, whose squares add up to 1.
    """

    alpha: Tensor
    sigma: Tensor
    alpha_rate: Tensor
    sigma_rate: Tensor
    coordinate: Tensor


@dataclass(frozen=True)
class GaussianPath:
    r"""x_t = alpha(t) x0 + sigma(t) noise.

    Attributes:
        name: for messages.
        at: times -> coefficients of the same shape.
        grid: steps -> the steps + 1 times that a sampler visits, from noise down to the clip.
    """

    name: str
    at: Callable[[Tensor], Coefficients]
    grid: Callable[[int], Tensor]

    def coefficients(self, times: Times, like: Tensor) -> Coefficients:
        """Return the coefficients with axes of one for those of `like` after the batch."""
        return self.at(times.float().reshape(-1, *[1] * (like.dim() - 1)))

    def mix(self, clean: Tensor, noise: Tensor, times: Times) -> Tensor:
        """Return x_t."""
        c = self.coefficients(times, clean)
        return c.alpha * clean + c.sigma * noise

    def target(self, kind: Target, clean: Tensor, noise: Tensor, times: Times) -> Tensor:
        """Return what a network of this kind should predict."""
        if kind == "velocity":
            c = self.coefficients(times, clean)
            return c.alpha_rate * clean + c.sigma_rate * noise
        return clean if kind == "clean" else noise

    def solve(self, kind: Target, x: Tensor, value: Tensor, times: Times) -> tuple[Tensor, Tensor]:
        r"""Return the clip and the noise that a prediction stands for.

        With $\Delta = \alpha\dot\sigma - \sigma\dot\alpha$: $x_0 = (\dot\sigma x_t - \sigma v)/\Delta$ and
        $\epsilon = (\alpha v - \dot\alpha x_t)/\Delta$.
        """
        c = self.coefficients(times, x)
        if kind == "velocity":
            delta = c.alpha * c.sigma_rate - c.sigma * c.alpha_rate
            return (c.sigma_rate * x - c.sigma * value) / delta, (c.alpha * value - c.alpha_rate * x) / delta
        if kind == "clean":
            return value, (x - c.alpha * value) / c.sigma
        return (x - c.sigma * value) / c.alpha, value


# --- Paths --------------------------------------------------------------------------------------------------------------------


def straight_path(shift: float = 1.0) -> GaussianPath:
    """Return rectified flow's path: alpha = 1 - t, sigma = t.

    Args:
        shift: a in t' = a t / (1 + (a - 1) t), by which the sampler's even times (and training's) move towards noise.
    """

    def at(t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one, t)

    return GaussianPath("straight", at, lambda steps: shifted(torch.linspace(1, 0, steps + 1), shift))


def shifted(times: Tensor, shift: float) -> Tensor:
    """Return times moved towards noise: more tokens bear more noise before they are hidden as well (Esser et al., 2024)."""
    return shift * times / (1 + (shift - 1) * times)


def _angular(alpha: Tensor, sigma: Tensor) -> Coefficients:
    return Coefficients(alpha, sigma, -sigma, alpha, torch.atan2(sigma, alpha))


def linear_beta_path(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> GaussianPath:
    """Return DDPM's path; time i / `steps` is step i of the paper.

    Args:
        steps: T.
        first: beta of step 1.
        last: beta of step T.
    """
    betas = torch.linspace(first, last, steps, dtype=torch.float64)
    log_alphas = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * torch.log1p(-betas).cumsum(0)])

    def at(t: Tensor) -> Coefficients:
        table = log_alphas.to(t.device)
        place = (t.double() * steps).clamp(0, steps)
        below = place.floor().long().clamp(max=steps - 1)
        log_alpha = torch.lerp(table[below], table[below + 1], place - below)
        return _angular(log_alpha.exp().float(), (-torch.expm1(2 * log_alpha)).clamp_min(0).sqrt().float())

    def grid(wanted: int) -> Tensor:
        """Return steps 1, 1 + T / S, ... from the last on, and 0, as the release of DDIM takes them; all T for S = T."""
        if wanted > steps:
            raise ConfigError(f"steps is {wanted}; this path has {steps}, and no more can be taken")
        visited = (torch.arange(wanted, dtype=torch.float64) * steps / wanted).floor() + 1
        return torch.cat([visited.flip(0), torch.zeros(1, dtype=torch.float64)]).div(steps).float()

    return GaussianPath("linear betas", at, grid)


def cosine_path(offset: float = 0.008) -> GaussianPath:
    """Return the cosine path of Nichol and Dhariwal (2021), Equation 17."""
    begin = offset / (1 + offset) * math.pi / 2

    def at(t: Tensor) -> Coefficients:
        alpha = (torch.cos((t + offset) / (1 + offset) * math.pi / 2) / math.cos(begin)).clamp(1e-4, 1)
        return _angular(alpha, (1 - alpha.square()).clamp_min(0).sqrt())

    return GaussianPath("cosine", at, lambda steps: torch.linspace(1, 0, steps + 1))


def edm_path(least: float = 0.002, most: float = 80.0, rho: float = 7.0) -> GaussianPath:
    """Return EDM's path, whose time is sigma itself; the grid is Equation 5 of Karras et al."""

    def at(t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(one, t, torch.zeros_like(t), one, t)

    def grid(steps: int) -> Tensor:
        ramp = torch.linspace(0, 1, steps) if steps > 1 else torch.zeros(1)
        sigmas = (most ** (1 / rho) + ramp * (least ** (1 / rho) - most ** (1 / rho))) ** rho
        return torch.cat([sigmas, torch.zeros(1)])

    return GaussianPath("EDM", at, grid)


def edm_scales(sigma: Times, deviation: float) -> tuple[Float[Tensor, "B 1 1 1 1"], Float[Tensor, "B 1 1 1 1"]]:
    """Return c_skip and c_out of EDM (Karras et al., Table 1) for clips whose numbers have a standard deviation."""
    sigma = sigma[:, None, None, None, None]
    total = sigma.square() + deviation**2
    return deviation**2 / total, sigma * deviation / total.sqrt()


def edm_input(x: Tensor, sigma: Times, deviation: float) -> Tensor:
    """Return c_in x of EDM (Karras et al., Table 1); its c_noise is ln(sigma) / 4."""
    return x / (sigma[:, None, None, None, None].square() + deviation**2).sqrt()


# --- Sampling -----------------------------------------------------------------------------------------------------------------


class SeededNoise:
    """Standard normal noise of which row i depends on ``seeds[i]`` alone; every call draws on."""

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.shape, self.device = tuple(shape), device

    def __call__(self) -> Tensor:
        """Draw noise of the shape ``(len(seeds), *shape)``; the first is `normal_codes`'s."""
        if not self.generators:
            return normal_codes([], *self.shape, device=self.device)
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)


def guided(unconditioned: Predict, *conditioned: tuple[Predict, float]) -> Predict:
    """Return classifier-free guidance on all channels: v_0 + w_1 (v_1 - v_0) + w_2 (v_2 - v_1) + ...

    What has no share in the sum is not computed: with weights of 1 that is all but the last.

    Args:
        unconditioned: v_0.
        conditioned: predictions, each under one condition more than the one before it, and their weights.

    References:
        Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, Equation 6, with w counted from 1; of two conditions Brooks
        et al., "InstructPix2Pix", CVPR 2023, Equation 3.
    """
    predictions, weights = [unconditioned, *(one for one, _ in conditioned)], [1.0, *(weight for _, weight in conditioned), 0.0]
    shares = [weight - following for weight, following in pairwise(weights)]
    parts = [(part, share) for part, share in zip(predictions, shares, strict=True) if share]
    if len(parts) == 1:
        return parts[0][0]
    return lambda x, times: torch.stack([share * part(x, times) for part, share in parts]).sum(dim=0)


@dataclass(frozen=True)
class Model:
    """A network on a path.

    Attributes:
        path: between clip and noise.
        kind: what the network predicts.
        predict: the network.
        limit: predicted clips are clamped to [-limit, limit]; None for latents, which have no bounds.
    """

    path: GaussianPath
    kind: Target
    predict: Predict
    limit: float | None = None

    def solve(self, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted clip and noise at one time for all rows."""
        times = time.to(x.device).expand(len(x))
        clean, noise = self.path.solve(self.kind, x, self.predict(x, times).float(), times)
        if self.limit is None:
            return clean, noise
        clean = clean.clamp(-self.limit, self.limit)
        return clean, self.path.solve("clean", x, clean, times)[1]

    def velocity(self, x: Tensor, time: Tensor) -> Tensor:
        """Return dx by the path's coordinate."""
        clean, noise = self.solve(x, time)
        return self.path.target("velocity", clean, noise, time.to(x.device).expand(len(x)))


Trace = Callable[[int, Tensor, Tensor], None]
"""Called with the number of the step, x after it and the clip that was predicted."""
Known = Callable[[Tensor, Tensor], Tensor]
"""(x_t, time) -> x_t with what is known put in."""


@dataclass(frozen=True)
class Step:
    """One step of a walk from noise to a clip.

    Attributes:
        model: the network on its path.
        x: where the step starts.
        clean: clip that the network sees in x.
        noise: noise that it sees in x.
        now: the path where the step starts.
        then: the path where it ends.
        end: time where it ends.
        last: whether it ends at the clip.
        before: the path and the predicted clip of the step before; None for the first.
        eta: fresh noise of ddim.
        fresh: draws noise.
    """

    model: Model
    x: Tensor
    clean: Tensor
    noise: Tensor
    now: Coefficients
    then: Coefficients
    end: Tensor
    last: bool
    before: tuple[Coefficients, Tensor] | None
    eta: float
    fresh: Callable[[], Tensor]


@torch.no_grad()
def sample(
    model: Model,
    start: Tensor,
    steps: int,
    sampler: Sampler,
    *,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
    known: Known | None = None,
    trace: Trace | None = None,
) -> Tensor:
    """Walk from noise to a clip.

    Args:
        model: the network on its path.
        start: x at the first time of the path's grid: noise, scaled by sigma.
        steps: of the walk.
        sampler: which kind.
        eta: fresh noise of ddim.
        noise: drawn from where the sampler wants fresh noise: `SeededNoise`, one stream per sample.
        known: applied to x before every step.
        trace: told of every step.
    """
    x, before = start, None
    for number, (now, then) in enumerate(pairwise(model.path.grid(steps).to(start.device))):
        if known is not None:
            x = known(x, now)
        clean, epsilon = model.solve(x, now)
        here, there = model.path.at(now), model.path.at(then)
        step = Step(model, x, clean, epsilon, here, there, then, bool(then == 0), before, eta, noise or _no_noise)
        x, before = STEPS[sampler](step), (here, clean)
        if trace is not None:
            trace(number, x, clean)
    return x


def ancestral(step: Step) -> Tensor:
    """Draw from q(x_s | x_t, x0) with the variance of q(x_t | x_s), "fixedlarge" (DDPM, Section 3.2); at the end, its mean."""
    now, then = step.now, step.then
    ratio, beta = added_between(now, then)
    mean = (then.alpha * beta * step.clean + ratio * then.sigma.square() * step.x) / now.sigma.square()
    return mean if step.last else mean + beta.sqrt() * step.fresh()


def ddim(step: Step) -> Tensor:
    """Go where the predicted clip and noise lead, a share of the noise drawn afresh (DDIM, Equation 12)."""
    now, then = step.now, step.then
    if step.eta == 0:
        return then.alpha * step.clean + then.sigma * step.noise
    drawn = step.eta * then.sigma / now.sigma * added_between(now, then)[1].sqrt()
    kept = (then.sigma.square() - drawn.square()).clamp_min(0).sqrt()
    return then.alpha * step.clean + kept * step.noise + drawn * step.fresh()


def added_between(now: Coefficients, then: Coefficients) -> tuple[Tensor, Tensor]:
    """Return the mean of q(x_t | x_s) as a share of x_s, and its variance: 1 - share^2 where alpha^2 + sigma^2 is 1."""
    ratio = now.alpha / then.alpha  # root of the product of 1 - beta over the steps between
    return ratio, (now.sigma.square() - ratio.square() * then.sigma.square()).clamp_min(0)


def euler(step: Step) -> Tensor:
    """Follow the velocity where the step starts."""
    return step.x + (step.then.coordinate - step.now.coordinate) * _velocity(step)


def heun(step: Step) -> Tensor:
    """Follow the mean of the velocities at both ends; the last step is Euler's, as no network was trained where it ends."""
    there = euler(step)
    if step.last:
        return there
    velocity = 0.5 * (_velocity(step) + step.model.velocity(there, step.end))
    return step.x + (step.then.coordinate - step.now.coordinate) * velocity


def dpm_solver(step: Step) -> Tensor:
    """Take a step of DPM-Solver++(2M) (Lu et al., Algorithm 2); first and last are of first order."""
    now, then = step.now, step.then
    aim = step.clean
    if step.before is not None and not step.last:
        earlier, clean_before = step.before
        this, previous = _log_ratio(then) - _log_ratio(now), _log_ratio(now) - _log_ratio(earlier)
        aim = aim + 0.5 * this / previous * (aim - clean_before)  # from pure noise `previous` is infinite: of first order
    shrink = then.sigma / now.sigma
    return shrink * step.x + (then.alpha - shrink * now.alpha) * aim


def _velocity(step: Step) -> Tensor:
    return step.now.alpha_rate * step.clean + step.now.sigma_rate * step.noise


def _log_ratio(c: Coefficients) -> Tensor:
    return c.alpha.log() - c.sigma.log()


def _no_noise() -> Tensor:
    raise ValueError("this sampler draws noise, and was given none")


STEPS: Mapping[Sampler, Callable[[Step], Tensor]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm-solver": dpm_solver,
}
