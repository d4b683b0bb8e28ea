"""The Pose Knows learns what it claims on a past with two known futures, and on a video that its skeleton explains."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kinema.core.types import Batch
from kinema.systems.pose_knows import PoseKnows
from kinema.training.trainer import TrainConfig, Trainer, run_fit

FRAMES, PAST, SPEED = 9, 5, 0.8  # pixels per frame


def two_futures(rows: int, generator: torch.Generator) -> Batch:
    """Somebody breathes in and out; then all of them goes to the left or to the right, as a coin says."""
    body = 8 + 2.5 * torch.randn(18, 2, generator=torch.Generator().manual_seed(1))
    time = torch.arange(float(FRAMES))
    side = 2.0 * torch.randint(0, 2, (rows,), generator=generator) - 1
    place = torch.rand(rows, 1, 1, 2, generator=generator) * 2 - 1
    pose = torch.ones(rows, FRAMES, 18, 3)
    pose[..., :2] = body + place
    pose[..., 1] += 0.3 * torch.sin(time)[None, :, None]
    pose[..., 0] += (side[:, None] * SPEED * (time - PAST + 1).clamp_min(0))[..., None]
    return Batch(torch.zeros(rows, 3, FRAMES, 16, 16), pose=pose)


def train(stage: str, steps: int, batches: Any, **changes: Any) -> PoseKnows:
    torch.manual_seed(0)
    system = PoseKnows(replace(PoseKnows.presets["tiny"].config, **changes))
    generator = torch.Generator().manual_seed(0)
    run_fit(system, "spread", [batches(64, generator)], TrainConfig())
    trainer = Trainer(system, stage, TrainConfig(batch_size=16, precision="fp32"))
    for _ in range(steps):
        trainer.step(batches(16, generator))
    return system.eval()


@torch.no_grad()
def best_of(system: PoseKnows, futures: int) -> Float[Tensor, "futures"]:
    """Return the mean distance of the last pose to the truth, of the best of 1, 2, ... futures."""
    batch = two_futures(64, torch.Generator().manual_seed(9))
    made = system.forecast_poses(batch.video[:, :, :PAST], batch.pose[:, :PAST], seeds=range(64), futures=futures)
    errors = (made[:, :, -1, :, :2] - batch.pose[:, None, -1, :, :2]).norm(dim=-1).mean(dim=-1)
    return errors.cummin(dim=1).values.mean(dim=0)


def test_the_best_of_more_futures_is_nearer_and_both_futures_come() -> None:
    """3.2 pixels lie between a future and the mean of both; a regressor stays there, whatever the number of samples.

    Seen to fail: with `latent="none"`, which is the regressor of the second half.
    """
    way = SPEED * (FRAMES - PAST)
    settings = {"state": 16, "posterior_width": 32, "pose_learning_rate": 5e-3, "kl_weight": 0.003}
    errors = best_of(train("pose", 200, two_futures, **settings), 10)
    assert errors[9] < 0.35 * way
    assert errors[9] < 0.5 * errors[0]
    alone = best_of(train("pose", 200, two_futures, latent="none", **settings), 10)
    assert alone[9] > 0.99 * alone[0] > 0.7 * way


def discs_at_the_wrist(rows: int, generator: torch.Generator) -> Batch:
    """A bright square where the right wrist is, which wanders; nothing else is drawn or moves."""
    start = 4 + 8 * torch.rand(rows, 1, 2, generator=generator)
    velocity = torch.rand(rows, 1, 2, generator=generator) * 1.6 - 0.8
    place = (start + torch.arange(float(FRAMES))[None, :, None] * velocity).clamp(2, 13)
    pose = torch.zeros(rows, FRAMES, 18, 3)
    pose[:, :, 4] = torch.cat([place, torch.ones(rows, FRAMES, 1)], dim=-1)
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy"), dim=-1)
    inside = ((grid - place[:, :, None, None]).abs().amax(dim=-1) < 2).float()
    return Batch((1.6 * inside - 0.8)[:, None].repeat(1, 3, 1, 1, 1), pose=pose)


def test_rendered_video_follows_the_skeleton() -> None:
    """The square goes with the wrist: at the true poses the error is far below that of the still picture, at others it is not.

    Ratios .58 and 1.2 when written. Seen to fail: with skeletons of other clips while training, the square stays; with colours
    that a mask lays over the frame, the mask closes and learns no more.
    """
    system = train("video", 150, discs_at_the_wrist, generator_width=16, learning_rate=1e-2)
    batch = discs_at_the_wrist(32, torch.Generator().manual_seed(9))
    real, poses = batch.video[:, :, PAST - 1 :], batch.pose[:, PAST - 1 :]
    with torch.no_grad():
        right = (system.render_poses(real[:, :, 0], poses) - real).abs().mean()
        stands = torch.cat([poses[:, :1]] * poses.shape[1], dim=1)
        wrong = (system.render_poses(real[:, :, 0], stands) - real).abs().mean()
    still = (real[:, :, :1] - real).abs().mean()
    assert right < 0.8 * still
    assert wrong > still
