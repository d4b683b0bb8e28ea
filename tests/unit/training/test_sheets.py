"""Pixels and grids by hand."""

import numpy as np
import torch

from kinema.training import sheets


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
