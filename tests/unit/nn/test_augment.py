import pytest
import torch

from kinema.core.seeds import shard_of_batch
from kinema.nn.augment import FAMILIES, augment, cut_out, translate


def still_clips(rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(rows, 3, 1, 16, 16, generator=generator) * 2 - 1
    return image.expand(-1, -1, 4, -1, -1).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_draw_for_all_frames_of_a_clip(family):
    """A still clip stays still; drawing per frame (the mistake of folding frames into the batch) makes this fail."""
    torch.manual_seed(0)
    changed = augment(still_clips(), (family,))
    assert torch.equal(changed, changed[:, :, :1].expand_as(changed))
    assert not torch.equal(changed, still_clips())


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_draw_what_one_draws(family):
    clips, halves = still_clips(4), []
    torch.manual_seed(5)
    whole = FAMILIES[family](clips)
    for rank in range(2):
        torch.manual_seed(5)
        with shard_of_batch(rank, 2):
            halves.append(FAMILIES[family](clips[2 * rank : 2 * rank + 2]))
    torch.testing.assert_close(torch.cat(halves), whole)


def test_translation_moves_the_picture_and_fills_with_grey():
    torch.manual_seed(0)
    clips = torch.ones(200, 1, 1, 16, 16)
    moved = translate(clips)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    kept_rows = moved[:, 0, 0].amax(dim=2).sum(dim=1)
    assert kept_rows.min() == 14  # an eighth of 16 is the largest shift
    assert kept_rows.max() == 16


def test_cutout_hides_a_square_of_half_the_side():
    torch.manual_seed(0)
    hidden = (cut_out(torch.ones(200, 1, 1, 16, 16)) == 0).sum(dim=(1, 2, 3, 4))
    assert hidden.max() == 64
    assert hidden.min() < 64  # a square may hang over an edge


def test_gradients_pass_and_the_layout_is_kept():
    clips = still_clips().requires_grad_(True)
    changed = augment(clips, tuple(FAMILIES))
    changed.sum().backward()
    assert clips.grad is not None
    assert clips.grad.any()
    assert changed.is_contiguous(memory_format=torch.channels_last_3d)


def test_no_family_changes_nothing():
    clips = still_clips()
    assert augment(clips, ()) is clips
