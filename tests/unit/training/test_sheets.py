"""Pixels and grids by hand."""

import numpy as np
import torch

from kinema.core.config import Config
from kinema.core.system import System
from kinema.training import sheets
from kinema.training.health import sample_clips


def test_pixels_are_rounded_and_grey_is_spread() -> None:
    video = torch.tensor([-1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 2, 2)
    assert sheets.to_pixels(video)[0, 0, ..., 0].tolist() == [[0, 128], [255, 255]]
    assert sheets.to_pixels(video).shape == (1, 1, 2, 2, 3)


def test_a_grid_holds_every_clip_in_its_place_and_has_even_sides() -> None:
    clips = [np.full((3, 33, 17, 3), 10 * number, np.uint8) for number in range(5)]
    made = sheets.grid(clips, columns=3)
    assert made.shape == (3, 2 * 132 + 4, 3 * 68 + 8, 3)
    assert made[0, 0, 0, 0] == 0
    assert made[2, 136, 72, 0] == 40  # the fifth clip: second row, second column
    assert made[0, 136, 144, 0] == 128
    assert all(side % 2 == 0 for side in sheets.grid(clips[:1], 1).shape[1:3])


class Still(System[Config]):
    """Forecasts that nobody moves."""

    past_frames, future_frames, skeleton = 2, 3, "coco-18"

    def forecast_poses(self, past, poses, *, seeds, futures):
        assert past.shape[2] == poses.shape[1] == 2
        return poses[:, None, -1:].expand(-1, futures, 3, -1, -1)

    def render_poses(self, image, poses):
        return image[:, :, None].expand(-1, -1, poses.shape[1], -1, -1)


def test_forecasts_are_shown_beside_what_happened_from_the_current_frame_on() -> None:
    video, poses = torch.rand(6, 3, 7, 16, 16) * 2 - 1, torch.zeros(6, 7, 18, 3)
    poses[:, 1:, 4] = torch.tensor([8.0, 4.0, 1.0])  # the right wrist
    poses[:, 4:, 4, 0] = 12
    shown = sheets.comparisons(Still(Config()), video, poses)["forecasts"]
    assert [clip.shape for clip in shown.values()] == [(4, 3, 4, 16, 16)] * 5
    assert torch.equal(shown["real"], video[:4, :, 1:5])
    assert torch.equal(shown["forecast"][:, :, 3], video[:4, :, 1])
    real, forecast = shown["real skeleton"], shown["forecast skeleton"]
    assert torch.equal(real[:, :, :3], forecast[:, :, :3])
    assert real[0, :, 3, 4, 8].max() == forecast[0, :, 3, 4, 12].max() == -1  # nothing is drawn there
    assert real[0, :, 3, 4, 12].max() == forecast[0, :, 3, 4, 8].max() > 0.5
    assert sheets.comparisons(Still(Config()), video) == {}


def test_samples_of_a_forecaster_are_its_rendered_futures() -> None:
    video, poses = torch.rand(5, 3, 7, 8, 8), torch.ones(5, 7, 18, 3)
    assert torch.equal(sample_clips(Still(Config()), 3, video, poses), video[:3, :, 1:2].expand(-1, -1, 4, -1, -1))
    assert len(sample_clips(Still(Config()), 3, video)) == 0
