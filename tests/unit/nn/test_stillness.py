"""The picture that stands still."""

import torch

from kinema.nn.stillness import still_picture


def test_the_still_picture_is_the_median_of_colours_that_stay():
    """A wall behind something that stands in front of it most of the time, but never in one colour for long."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.randint(0, 256, (3, 8, 8), generator=generator)
    clips = wall[None, :, None].repeat(6, 1, 16, 1, 1)
    clips[:4, :, :, 2:6, 2:6] = torch.randint(0, 256, (4, 3, 16, 4, 4), generator=generator)
    assert (clips.flatten(0, 0).permute(1, 3, 4, 0, 2).flatten(3).median(3).values != wall).any()  # a plain median sees it
    picture = still_picture(part / 127.5 - 1 for part in clips.float().split(4))
    assert torch.equal(((picture + 1) * 127.5).round().long(), wall)


def test_where_nothing_stands_still_the_median_of_all_colours_is_taken():
    levels = torch.arange(0, 250, 10).float()
    clip = levels.reshape(1, 1, -1, 1, 1).expand(1, 3, -1, 8, 8) / 127.5 - 1
    seen = levels[::4][1:]
    assert torch.allclose((still_picture([clip]) + 1) * 127.5, seen.median())


def test_where_the_clips_disagree_a_pixel_is_a_mean_over_its_neighbours():
    generator = torch.Generator().manual_seed(0)
    walls = torch.randint(0, 256, (31, 3, 32, 32), generator=generator).float()
    walls[..., :16] = walls[:1, ..., :16]  # one half is the same in all of them
    picture = (still_picture([walls[:, :, None].repeat(1, 1, 8, 1, 1) / 127.5 - 1]) + 1) * 127.5
    assert torch.allclose(picture[..., :16], walls[0, ..., :16], atol=1e-3)
    medians = walls.median(dim=0).values
    assert 2 * picture[..., 16:].std() < medians[..., 16:].std()
