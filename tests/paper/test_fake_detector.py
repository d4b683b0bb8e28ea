"""The detector against what is known of the paper's, and its own stated numbers; the paper has no equation for it."""

import torch
from scipy.ndimage import uniform_filter

from kinema.systems.fake_detector import CERTAIN, FakeDetector, FakeDetectorConfig, residual


def by_hand(video: torch.Tensor) -> torch.Tensor:
    """Four times what SciPy's mean over 5 x 5 pixels leaves."""
    return torch.from_numpy(4 * (video.numpy() - uniform_filter(video.numpy(), (0, 0, 0, 5, 5), mode="mirror")))


def test_it_sees_pairs_of_frames_unless_told_otherwise():
    assert FakeDetectorConfig().frames == 2
    assert {preset.config.frames for preset in FakeDetector.presets.values()} == {2}


def test_a_judgement_sees_17_x_17_pixels_of_every_frame():
    torch.manual_seed(0)
    system = FakeDetector(FakeDetectorConfig(frames=3, height=48, width=48, channels=8))
    stacked = torch.rand(1, 3 * 5, 48, 48, requires_grad=True)
    made = system.judges(stacked)
    made[0, 0, made.shape[2] // 2, made.shape[3] // 2].backward()
    assert stacked.grad is not None
    seen = stacked.grad[0].abs().sum(dim=0) > 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == 17
    assert bool((stacked.grad[0].abs().sum(dim=(1, 2)) > 0).all())  # all frames and all differences


def test_parameters_by_hand():
    """Convolutions of k*k*in*out + out, for 9 planes and 24 channels."""
    system = FakeDetector(FakeDetector.presets["laptop"].config)
    convolutions = (9 * 9 * 24 + 24) + (9 * 24 * 48 + 48) + (9 * 48 * 96 + 96) + 2 * (9 * 96 * 96 + 96) + (96 + 1)
    assert sum(parameter.numel() for parameter in system.parameters()) == convolutions == 220_129


def test_evidence_is_the_mean_of_bounded_votes_of_patches_and_any_size_has_some():
    torch.manual_seed(0)
    system = FakeDetector(FakeDetectorConfig(height=24, width=40, channels=8)).eval()
    video = torch.rand(2, 3, 2, 24, 40)
    left = by_hand(video)
    stacked = torch.cat([left, left[:, :, 1:] - left[:, :, :1]], dim=2)
    planes = torch.stack([stacked[:, colour, plane] for colour in range(3) for plane in range(3)], dim=1)
    patches = system.judges(planes)
    assert patches.shape == (2, 1, 4, 12)
    votes = CERTAIN * torch.tanh(patches / CERTAIN)
    torch.testing.assert_close(system.evidence(video), votes.mean(dim=(1, 2, 3)))


@torch.no_grad()
def test_contrast_does_not_make_a_patch_louder_than_a_vote():
    torch.manual_seed(0)
    system = FakeDetector(FakeDetectorConfig(height=24, width=24, channels=8)).eval()
    loud = 1000 * torch.rand(1, 3, 2, 24, 24)
    assert float(system.judges(torch.cat([loud, 4 * loud.diff(dim=2)], dim=2).flatten(1, 2)).abs().max()) > 10 * CERTAIN
    assert float(system.evidence(loud).abs()) <= CERTAIN


@torch.no_grad()
def test_neither_colour_nor_light_that_changes_slowly_says_anything():
    torch.manual_seed(0)
    system = FakeDetector(FakeDetectorConfig(height=24, width=24, channels=8)).eval()
    video = 0.2 * torch.rand(1, 3, 2, 24, 24)
    tinted = video + torch.tensor([0.3, -0.1, 0.2]).view(1, 3, 1, 1, 1)
    lit = video + 0.02 * torch.arange(24.0)
    torch.testing.assert_close(system.evidence(tinted), system.evidence(video), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(residual(lit)[..., 2:-2], residual(video)[..., 2:-2], rtol=1e-3, atol=1e-4)
