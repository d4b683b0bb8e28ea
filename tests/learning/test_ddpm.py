"""DDPM learns a small world, and completes what it knows."""

import pytest
import torch

from kinema.core.sampling import Sampling
from kinema.core.types import Batch
from kinema.nn.paths import Model, SeededNoise, linear_beta_path
from kinema.systems.ddpm import DDPM, complete
from kinema.systems.ddpm_networks import DDPMConfig
from kinema.training import TrainConfig, Trainer


def bars(rows: int, seed: int) -> torch.Tensor:
    """Pictures of 8x8 whose left or right half is bright, the other dark."""
    side = torch.randint(2, (rows, 1, 1, 1, 1), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    halves = torch.cat([torch.full((4,), 0.8), torch.full((4,), -0.8)])
    return (side * halves).expand(rows, 3, 1, 8, 8).contiguous()


SETTINGS = {"height": 8, "width": 8, "channels": 16, "multipliers": (1, 2), "attention": (4,), "blocks": 1, "groups": 4}


@pytest.fixture(scope="module")
def trained() -> DDPM:
    torch.manual_seed(0)
    system = DDPM(DDPMConfig(**SETTINGS, dropout=0.0, learning_rate=3e-3, sampler="ancestral", sampling_steps=100))
    budget = {"steps": 200, "schedule": "linear"}
    trainer = Trainer(system, "denoising", TrainConfig(batch_size=16, ema_samples=500, precision="fp32", **budget))
    for step in range(200):
        trainer.step(Batch(bars(16, step)))
    return trainer.refresh_sampler([])


def misfit(made: torch.Tensor) -> float:
    """Mean distance of samples to the nearer of the two pictures, per pixel."""
    both = bars(20, 0).unique(dim=0)
    return (made[:, None] - both).abs().mean(dim=(2, 3, 4, 5)).amin(1).mean().item()


def test_samples_are_of_the_two_pictures_it_saw(trained):
    """After 20 steps instead of 200 the distance is 0.75; both pictures are made."""
    made = trained.generate(range(24))
    left = made[..., :4].mean(dim=(1, 2, 3, 4)) > 0
    assert misfit(made) < 0.5
    assert 4 <= int(left.sum()) <= 20


def test_what_is_hidden_follows_from_what_is_known(trained):
    """The left half decides the right; after 20 steps instead of 200 it agrees in 0.69 of the cases."""
    video = bars(16, 3)
    known = torch.zeros(16, 1, 1, 8, 8)
    known[..., :4] = 1
    made = trained.inpaint(video, known, seeds=range(16), sampling=Sampling(sampler="ancestral", steps=25))
    agrees = (made[..., 4:].mean(dim=(1, 2, 3, 4)) > 0) == (video[..., 4:].mean(dim=(1, 2, 3, 4)) > 0)
    assert agrees.float().mean() >= 0.9
    assert torch.equal(made[..., :4], video[..., :4])


def test_repeating_stretches_ties_what_is_filled_in_to_what_is_known():
    """Two pixels of correlation 0.98, one of them known: with the exact network, one pass misses the other by more than twice
    the error of five."""
    covariance = torch.tensor([[1.0, 0.98], [0.98, 1.0]])
    path = linear_beta_path()

    def predict(x, times):
        c = path.at(times[0])
        return x @ torch.linalg.solve(c.alpha**2 * covariance + c.sigma**2 * torch.eye(2), c.alpha * covariance)

    def error(passes: int) -> float:
        noise = SeededNoise([0], (3000, 2))
        video = torch.randn(1, 3000, 1, generator=torch.Generator().manual_seed(9)).expand(1, 3000, 2)
        known = torch.tensor([True, False]).expand(1, 3000, 2)
        how = Sampling(sampler="ancestral", steps=100)
        made = complete(Model(path, "clean", predict), video, known, noise(), noise, how, passes)
        return (made[..., 1] - 0.98 * video[..., 0]).square().mean().sqrt().item()

    exact = (1 - 0.98**2) ** 0.5
    once, often = error(1) - exact, error(5) - exact
    assert often < 0.5 * once
