"""The picture that stands still."""

import torch

from kinema.nn import stillness
from kinema.nn.stillness import ENOUGH, still_picture, still_pictures, uncovered_picture


def test_the_still_picture_is_the_median_of_colours_that_stay():
    """A wall behind something that stands in front of it most of the time, but never in one colour for long."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.randint(0, 256, (3, 8, 8), generator=generator)
    clips = wall[None, :, None].repeat(12, 1, 16, 1, 1)
    clips[:8, :, :, 2:6, 2:6] = torch.randint(0, 256, (8, 3, 16, 4, 4), generator=generator)
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


def test_colours_that_stay_by_chance_do_not_count():
    """A fountain that is white in two looks that follow each other, and another grey in all others."""
    levels = torch.arange(40, 40 + 5 * (ENOUGH + 2), 5).float()
    levels[3:5] = 255
    clip = levels.repeat_interleave(4).reshape(1, 1, -1, 1, 1).expand(1, 3, -1, 4, 4) / 127.5 - 1
    assert (still_picture([clip]) + 1).mul(127.5).max() < 200


def test_who_stands_before_the_wall_most_of_the_time_is_not_in_the_uncovered_picture():
    wall = torch.arange(3 * 16 * 16).reshape(3, 16, 16) % 200
    clips = wall[None, :, None].repeat(12, 1, 16, 1, 1).float()
    covered = torch.zeros(12, 1, 16, 16, 16, dtype=torch.bool)
    covered[:10, :, :, 4:14, 4:8] = True  # she steps aside in a sixth of the clips
    covered[10:, :, :, 4:14, 10:14] = True
    clips = torch.where(covered, 255.0, clips)
    seen = [(clips / 127.5 - 1, covered)]
    with_her = still_picture(video for video, _ in seen).add(1).mul(127.5)
    assert (with_her - wall).abs()[:, 5:13, 5:7].min() > 20
    assert torch.equal(uncovered_picture(seen).add(1).mul(127.5).round().long(), wall)


def test_what_is_always_covered_goes_on_as_its_neighbourhood_does():
    clips = torch.full((4, 3, 16, 16, 16), 0.5)
    covered = torch.zeros(4, 1, 16, 16, 16, dtype=torch.bool)
    covered[..., 4:12, 6:9] = True
    clips[covered.expand_as(clips)] = -1.0
    picture = uncovered_picture([(clips, covered)])
    torch.testing.assert_close(picture, torch.full_like(picture, 0.5), atol=0.02, rtol=0)
    everywhere = torch.ones_like(covered)
    assert uncovered_picture([(clips, everywhere)]).isfinite().all()


def films(places: list[int], walls: torch.Tensor) -> torch.Tensor:
    """Clips of walls with something before them that moves and hides a fifth of the wall."""
    clips = walls[places][:, :, None].repeat(1, 1, 8, 1, 1)
    for i, clip in enumerate(clips):
        clip[:, :, :, (5 * i) % 13 :][..., :3] = torch.randint(0, 256, (3, 8, 1, 1), generator=torch.Generator().manual_seed(i))
    return clips / 127.5 - 1


def test_places_are_told_apart_and_counted():
    walls = torch.tensor([[60.0, 60, 60], [180, 150, 90], [20, 200, 20]])[:, :, None, None].expand(-1, -1, 16, 16)
    places = [2] * 6 + [0] * 12 + [1] * 3
    pictures, shares = still_pictures(iter(films(places, walls).split(4)), 5)
    assert torch.allclose(shares, torch.tensor([12, 6, 3, 0, 0]) / 21)
    for picture, wall in zip(pictures, walls[[0, 2, 1]], strict=False):
        assert ((picture + 1) * 127.5 - wall).abs().median() <= 1
    assert (pictures[3:] == -1).all()


def test_of_more_places_than_asked_for_the_nearest_are_merged():
    walls = torch.tensor([20.0, 60, 120, 240])[:, None, None, None].expand(-1, 3, 16, 16)
    close = walls.clone()
    close[1, :, :5] = walls[0, :, :5]  # a third of the second wall is the first
    clips = close[[0, 0, 1, 2, 2, 2, 3, 3]][:, :, None].repeat(1, 1, 8, 1, 1) / 127.5 - 1
    _, shares = still_pictures([clips], 3)
    assert torch.allclose(shares, torch.tensor([3, 3, 2]) / 8)


def test_places_of_many_clips_are_found_in_an_even_sample(monkeypatch):
    monkeypatch.setattr(stillness, "SAMPLE", 60)
    walls = torch.tensor([50.0, 200])[:, None, None, None].expand(-1, 3, 8, 8)
    clips = walls[[0] * 300 + [1] * 100][:, :, None].repeat(1, 1, 4, 1, 1) / 127.5 - 1
    torch.manual_seed(0)
    pictures, shares = still_pictures(clips.split(8), 2)
    assert torch.isclose(shares.sum(), torch.tensor(1.0))
    assert 0.1 < shares[1] < 0.4
    assert torch.allclose((pictures.mean(dim=(1, 2, 3)) + 1) * 127.5, torch.tensor([50.0, 200]), atol=0.1)


def test_a_clip_unlike_all_others_is_no_place_but_one_of_those_it_is_most_like():
    walls = torch.tensor([50.0, 80, 200])[:, None, None, None].repeat(1, 3, 8, 8)
    walls[1, :, :3] = 200  # three rows of eight are those of the last wall
    clips = walls[[0] * 80 + [1] + [2] * 60][:, :, None].repeat(1, 1, 4, 1, 1) / 127.5 - 1
    _, shares = still_pictures([clips], 4)
    assert torch.allclose(shares, torch.tensor([80, 61, 0, 0]) / 141)


def test_one_clip_is_one_place():
    pictures, shares = still_pictures([torch.zeros(1, 3, 8, 8, 8)], 4)
    assert shares.tolist() == [1, 0, 0, 0]
    assert pictures[0].abs().max() < 0.01
