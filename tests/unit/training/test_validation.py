"""What a run measures on held-out clips: the same clips, the same noise, and nothing of training's own randomness."""

from pathlib import Path

import pytest
import torch

from averager import Averager, AveragerConfig
from kinema.core.errors import TrainingError
from kinema.data.dataset import Dataset
from kinema.training import validation
from kinema.training.validation import Validation
from small_dataset import write_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 clips of eight frames, of which the averager sees the first four."""
    data = write_dataset(tmp_path_factory.mktemp("validation") / "data", 40, shape=(8, 16, 16), test_every=2)
    return Dataset(data, "test")


def system(**settings: object) -> Averager:
    torch.manual_seed(0)
    return Averager(AveragerConfig(**settings)).eval()  # type: ignore[arg-type]


def test_the_number_is_the_mean_over_the_held_out_clips(held_out: Dataset) -> None:
    """Over portions of 16 and 4, not over portions."""
    averager = system()
    averager.encoder.weight.data.mul_(2)
    video = torch.stack([torch.from_numpy(held_out.video(i, 0, 4).copy()) for i in range(20)])
    video = video.permute(0, 4, 1, 2, 3) / 127.5 - 1
    means = torch.nn.functional.avg_pool3d(video, (1, 4, 4))
    error = (averager.encoder(video) - means).abs().mean().detach()
    measured = Validation(held_out, averager, 0, CPU).measure(averager, "compressor")
    assert measured == {"validation/error": pytest.approx(float(error), rel=1e-5)}


def test_the_noise_is_the_same_every_time_and_training_goes_on_with_its_own(held_out: Dataset) -> None:
    averager = system()
    measure = Validation(held_out, averager, 3, CPU).measure
    torch.manual_seed(5)
    first, drawn = measure(averager, "denoiser"), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert measure(averager, "denoiser") == first
    assert Validation(held_out, averager, 4, CPU).measure(averager, "denoiser") != first


def test_a_large_set_is_represented_by_clips_at_even_distances(held_out: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "COMPARED", 3)
    seen: list[int] = []
    averager = system()
    monkeypatch.setattr(averager, "validate", lambda batch, stage: seen.append(len(batch)) or {})
    assert Validation(held_out, averager, 0, CPU).measure(averager, "compressor") == {}
    assert seen == [3]


def test_held_out_clips_without_what_the_system_needs_are_refused_at_once(tmp_path: Path) -> None:
    plain = Dataset(write_dataset(tmp_path / "data", 10, shape=(4, 16, 16), labels=()), "test")
    with pytest.raises(TrainingError, match="averager trains on clips with label; this dataset carries only"):
        Validation(plain, system(condition="label", classes=2), 0, CPU)
