"""What a person can ask wrongly of the latent video diffusion transformer itself; other tests ask a stand-in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kinema.cli import main
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.training.checkpoint import save_checkpoint
from small_dataset import write_dataset

LABELS = ("bow", "walk")


def write_run(folder: Path, **settings: object) -> None:
    """Write a run that was not trained, which is enough to be asked."""
    torch.manual_seed(0)
    folder.mkdir()
    config = replace(LatentVideoDiT.presets["tiny"].config, compressor_width=8, **settings)
    about = {"fps": 25.0, "labels": list(LABELS)}
    save_checkpoint(folder / "checkpoint.safetensors", LatentVideoDiT(config), stage="transformer", dataset=about)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("latent")
    write_run(place / "classes", condition="label", classes=2)
    write_run(place / "sentences", condition="caption")
    write_run(place / "free", condition="none")
    write_dataset(place / "data", 6, shape=(8, 16, 16))
    (place / "nothing").mkdir()
    Image.fromarray(np.full((20, 60, 3), 90, np.uint8)).save(place / "wide.png")
    return place


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["generate", "classes", "--text", "a person waves"], "latent-video-dit of classes knows no caption; it takes --label"),
        (
            ["predict", "free", "wide.png", "--text", "hi"],
            "latent-video-dit of free knows no caption; it takes no condition at",
        ),
        (["generate", "sentences", "--label", "walk"], "latent-video-dit of sentences knows no label; it takes --text"),
        (["generate", "classes", "--label", "wakl"], "classes knows no class 'wakl'; did you mean 'walk'? accepted: bow, walk"),
        (["generate", "classes", "--steps", "0"], "steps is 0; it must be 1 or more"),
        (
            ["generate", "classes", "--size", "8x17x16"],
            "clips of 8x17x16 are no multiple of 4x8x8 (or one frame); the nearest: ",
        ),
        (["generate", "classes", "--frames", "100000000"], "a clip of 100000000x16x16 needs "),
        (["predict", "classes", "wide.png", "--frames", "1000000000"], "1000000001 frames need "),
        (["train", "data", "--compressor-from", "elsewhere"], "compressor_from: elsewhere is no checkpoint ("),
        (
            ["train", "data", "--compressor-from", "nothing"],
            "compressor_from: nothing/checkpoint.safetensors is no checkpoint (",
        ),
        (
            ["train", "data", "--compressor-from", "classes"],
            "compressor_from: the compressor of classes/checkpoint.safetensors i",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_made(
    place: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last: a transformer of one run and a compressor of another, which is half as wide."""
    monkeypatch.chdir(place)
    verb, *rest = words
    if verb == "train":
        rest = ["latent-video-dit", *rest, "--preset", "tiny", "--steps", "2"]
    assert main([verb, *rest, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: {sentence}")
    assert said.count("\n") == 1
    assert not (place / "out").exists()


def test_sizes_of_its_buckets_are_its_own(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The preset's: single frames and clips of four."""
    for frames in (8, 4, 1):
        assert (
            main(["generate", str(place / "free"), "--frames", str(frames), "--count", "1", "--out", f"{tmp_path}/{frames}"])
            == 0
        )
        assert "note: " not in capsys.readouterr().out
    assert main(["generate", str(place / "free"), "--frames", "12", "--count", "1", "--out", f"{tmp_path}/12"]) == 0
    note = "note: free was trained on clips of 8x16x16, 1x16x16, 4x16x16 and not of 12x16x16, which may look worse\n"
    assert note in capsys.readouterr().out
