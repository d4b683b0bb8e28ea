"""What disturbs the clips of a detector in training; values by SciPy and Pillow."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from kinema.core.errors import ConfigError
from kinema.core.seeds import shard_of_batch
from kinema.core.types import Batch
from kinema.systems.fake_detector import (
    FakeDetector,
    FakeDetectorConfig,
    blurred,
    dct_basis,
    disturb,
    noisy,
    quantisation,
    recompressed,
    resampled,
)


def clips(rows: int = 2, side: int = 24, frames: int = 2) -> torch.Tensor:
    coarse = torch.rand(rows, 3, frames, 6, 6, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (frames, side, side), mode="trilinear")


def test_the_transform_is_scipy_s():
    block = np.random.default_rng(0).normal(size=(8, 8))
    basis = dct_basis().double().numpy()
    assert basis @ block @ basis.T == pytest.approx(dctn(block, norm="ortho"), abs=1e-5)
    assert basis @ basis.T == pytest.approx(np.eye(8), abs=1e-6)


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_steps_are_those_of_pillow_s_jpeg(quality):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization  # type: ignore[attr-defined]  # in reading order since Pillow 8.3
    ours = quantisation(torch.tensor([float(quality)]))[0]
    assert ours[0].flatten().tolist() == list(tables[0])
    assert ours[1].flatten().tolist() == list(tables[1])


def test_recompressing_does_to_a_picture_what_jpeg_does():
    video = clips(1, side=40, frames=1)
    picture = ((video[0, :, 0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=30, subsampling=0)
    theirs = np.asarray(Image.open(file)).astype(float)
    exact = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    ours = ((recompressed(exact, torch.tensor([1.0]))[0, :, 0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.median(np.abs(ours - theirs)) < 0.5  # theirs are rounded; a coefficient near a border may fall to the other side
    assert np.median(np.abs(theirs - picture)) > 1.5  # it was no small change


def test_recompressing_keeps_a_size_that_is_no_multiple_of_eight():
    video = clips(2, side=19)
    again = recompressed(video, torch.zeros(2))
    assert again.shape == video.shape
    assert (again - video).abs().mean() < 0.03


def test_the_blur_is_scipy_s():
    video = clips(2)
    strength = torch.tensor([0.0, 1.0])
    made = blurred(video, strength)
    for row, deviation in enumerate((0.3, 1.5)):
        wanted = gaussian_filter(video[row, 0, 0].numpy(), deviation, mode="mirror", radius=4)
        assert made[row, 0, 0].numpy() == pytest.approx(wanted, abs=1e-5)


def test_resampling_scales_about_the_middle():
    video = torch.zeros(1, 3, 2, 25, 25)
    video[:, :, :, 12 - 5 : 12 + 6, 12 - 5 : 12 + 6] = 1
    for strength, scale in ((0.0, 0.7), (0.5, 0.99), (1.0, 1.4)):
        made = resampled(video, torch.tensor([strength]))
        assert float(made[0, 0, 0, 12].sum()) == pytest.approx(11 * scale, abs=1.0)
        assert made[0, 0, 0] == pytest.approx(made[0, 0, 0].flip(0, 1), abs=1e-4)


def test_noise_has_its_strength_and_its_own_seed():
    video = torch.zeros(2, 3, 2, 64, 64)
    made = noisy(video, torch.tensor([1.0, 0.5]))
    assert (made.std(dim=(1, 2, 3, 4)) * 127.5).tolist() == pytest.approx([6, 3], rel=0.03)
    assert torch.equal(noisy(video[1:], torch.tensor([0.5])), made[1:])
    assert noisy(video, torch.zeros(2)).abs().max() == 0


def test_two_processes_disturb_a_batch_as_one_does():
    video = clips(4)
    torch.manual_seed(3)
    whole = disturb(video, 0.7)
    for rank in range(2):
        torch.manual_seed(3)
        with shard_of_batch(rank, 2):
            part = disturb(video[2 * rank : 2 * rank + 2], 0.7)
        torch.testing.assert_close(part, whole[2 * rank : 2 * rank + 2])


def test_what_is_not_disturbed_is_mirrored_at_most():
    video = clips(8)
    torch.manual_seed(0)
    made = disturb(video, 0.0)
    same = [torch.equal(one, other) for one, other in zip(made, video, strict=True)]
    mirrored = [torch.equal(one, other.flip(3)) for one, other in zip(made, video, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_the_calibration_is_in_the_logits_and_in_the_checkpoint():
    torch.manual_seed(0)
    system = FakeDetector(FakeDetectorConfig(height=24, width=24, channels=8)).eval()
    video = clips()
    with torch.no_grad():
        evidence = system.evidence(video)
        assert not bool(system.calibrated)
        assert system.recognise(video).softmax(dim=1)[:, 1].tolist() == pytest.approx(evidence.sigmoid().tolist())
        system.calibrate((3.0, -0.5), (2.0, 0.1))
        assert system.recognise(video).softmax(dim=1)[:, 1].tolist() == pytest.approx((3 * evidence - 0.5).sigmoid().tolist())
    assert {"calibration", "calibrated"} <= system.state_dict().keys()
    assert bool(system.calibrated)


@pytest.mark.parametrize("label", [None, torch.tensor([0, 2])])
def test_other_labels_are_refused(label):
    system = FakeDetector(FakeDetectorConfig(height=24, width=24, channels=8))
    with pytest.raises(ConfigError, match="fake-detector knows two classes, real and fake"):
        system.detection_objective(Batch(clips(), label=label))
