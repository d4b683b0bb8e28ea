"""kinema evaluate --paired, --content, and of systems that predict, as a person types it, on untrained tiny systems."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.data.encode import write_video
from kinema.data.shapes import ShapesSettings, render_clip
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import make_video, write_dataset

SHAPE = (8, 16, 16)
SMALL = ("--features", "small_features:Colours")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained systems, a dataset of 40 training and 40 test clips, and folders of 9 of them, as they are and paler."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("vgan", "vgan-future", "vgan-autoencoder"):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS[name](SYSTEMS[name].presets["tiny"].config)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, system, stage="test", dataset={"fps": 25.0}, provenance=provenance())
    write_dataset(folder / "data", 80, per_shard=80, shape=SHAPE, test_every=2)
    write_dataset(folder / "wide", 20, per_shard=20, shape=(8, 16, 20), test_every=2)
    write_dataset(folder / "few", 20, per_shard=20, shape=SHAPE)
    for name in ("truth", "made", "fewer"):
        (folder / name).mkdir()
        for number in range(6 if name == "fewer" else 9):
            clip = make_video(number, *SHAPE)
            noisy = clip if name == "truth" else (clip // 2 + 50).astype(np.uint8)
            write_video(folder / name / f"{number:03d}.{'webm' if name == 'truth' else 'mp4'}", noisy, 25.0)
    np.save(folder / "raw.npy", np.stack([make_video(2 * number, *SHAPE) for number in range(40)]))
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


def judge(out: Path, *words: object) -> dict:
    assert run(*words, "--out", out) == 0
    return json.loads((out / "report.json").read_text())


def test_predictions_stand_beside_the_held_out_clips(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (place / "vgan-future", "--against", place / "data", "--paired", "--perceptual", "none")
    report = judge(tmp_path, *words, "--count", 9)
    protocol = report["protocol"]
    assert (protocol["kind"], protocol["split"], protocol["pairs"], protocol["given frames"]) == ("predictions", "test", 9, 1)
    assert report["deterministic"]
    assert report["judged"]["system"] == "vgan-future"
    assert list(report["scores"]) == ["psnr", "ssim"]
    assert len(report["scores"]["psnr"]["curve"]["value"]) == 8
    assert report["scores"]["psnr"]["given frames"]["value"] < 100
    assert [n for n, _ in report["scores"]["psnr"]["best of"]] == [1, 2, 4, 8]
    said = capsys.readouterr().out
    assert re.search(r"data:\s+9\s+predictions", said)
    assert "given frame repeated" in said
    assert "note: The system is deterministic" in said
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 6
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert run("--compare", tmp_path, tmp_path / "report.json") == 2
    assert "--compare names a report twice" in capsys.readouterr().err
    (tmp_path / "other.json").write_text((tmp_path / "report.json").read_text())
    assert run("--compare", tmp_path, tmp_path / "other.json") == 0
    assert "mean frame" in capsys.readouterr().out


def test_reconstructions_stand_beside_the_clips(place: Path, tmp_path: Path) -> None:
    words = (place / "vgan-autoencoder", "--against", place / "data", "--paired", "--split", "train", "--count", 8)
    report = judge(tmp_path, *words)
    assert (report["protocol"]["kind"], report["protocol"]["split"]) == ("reconstructions", "train")
    assert report["scores"]["perceptual[efficientnet-lite0]"]["value"] > 0
    assert report["scores"]["psnr"]["best of"] == [[1, report["scores"]["psnr"]["value"]]]
    assert not report["deterministic"]


def test_folders_belong_together_by_name_and_arrays_by_order(place: Path, tmp_path: Path) -> None:
    none = ("--paired", "--perceptual", "none")
    report = judge(tmp_path / "files", place / "made", "--against", place / "truth", *none)
    assert report["protocol"]["kind"] == "pairs"
    assert 5 < report["scores"]["psnr"]["value"] < 25
    assert any("stored as h264 and vp9" in said for said in report["warnings"])
    same = judge(tmp_path / "raw", place / "raw.npy", "--against", place / "data", *none)  # its test split
    assert same["scores"]["psnr"]["value"] == 100
    assert same["scores"]["ssim"]["value"] == pytest.approx(1)


def test_a_system_that_predicts_is_judged_by_its_predictions(place: Path, tmp_path: Path) -> None:
    report = judge(tmp_path, place / "vgan-future", "--against", place / "data", *SMALL, "--count", 32)
    assert report["protocol"]["predicted from"] == "the first frame of clips of the split 'test'"
    assert report["judged"]["clips"] == "32 of 40, drawn by seed 0"
    assert report["scores"]["frechet[small_features:Colours]"]["value"] > 0
    assert "content" not in report


def test_the_content_of_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real Shape Motion clips of another seed score 0, beside real ones that score 0."""
    assert main(["prepare", "shapes", "--clips", "40", "--frames", "8", "--out", str(tmp_path / "data")]) == 0
    other = ShapesSettings(frames=8, seed=1)
    np.save(tmp_path / "other.npy", np.stack([render_clip(index, other).video for index in range(32)]))
    words = (tmp_path / "other.npy", "--against", tmp_path / "data", *SMALL, "--content", "shape")
    report = judge(tmp_path / "card", *words)
    content = report["content"]
    assert content["name"] == "acd[shape colour]"
    assert content["acd"] == content["acd of real clips"] == 0
    assert content["frames mixed across clips"] > 100
    assert content["path length"] > 20
    said = capsys.readouterr().out
    assert "acd[shape colour], levels" in said
    assert "frames mixed across clips" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["vgan", "--against", "data"],
            "vgan cannot predict or forecast or reconstruct or transfer motion; systems that can: vgan-future",
        ),
        (["vgan-future", "--against", "wide"], "vgan-future has clips of 8x16x16 and wide of 8x16x20"),
        (["vgan-future", "--against", "few"], "few has 4 clips to stand beside vgan-future; a mean with an interval needs"),
        (["vgan-future", "--against", "truth"], "truth has no dataset.json"),
        (
            ["vgan-future", "--against", "data", "--count", "41"],
            "data has 40 clips to stand beside vgan-future; give --count 8 to 40",
        ),
        (["vgan-future", "--against", "data", "--features", "a:b"], "--features has no meaning with --paired"),
        (["vgan-future", "--against", "data", "--lpips-weights", "no.pth"], "no.pth does not exist; make it where lpips"),
        (["vgan-future", "--against", "data", "--futures", "0"], "futures is 0; it must be from 1 to 1000"),
        (["vgan-autoencoder", "--against", "data", "--futures", "4"], "--futures are of a run that predicts; vgan-autoencoder"),
        (["made", "--against", "truth", "--split", "test"], "--split chooses clips for a run"),
        (["fewer", "--against", "truth"], "fewer and truth do not hold the same clips: only truth has 006, 007, 008"),
        (["fewer", "--against", "fewer"], "fewer has 6 clips to stand beside fewer; a mean with an interval needs at least 8"),
        (["raw.npy", "--against", "truth"], "raw has 40 clips and truth 9; clips without names belong together by their order"),
        (["wide", "--against", "data"], "wide has clips of 8x16x20 and data of 8x16x16"),
        (["nowhere", "--against", "data"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    perceptual = [] if "--features" in words else ["--perceptual", "none"]
    assert run(*words, "--paired", *perceptual) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"kinema: {sentence}")
    assert said.err.count("\n") == 1
    assert not list(place.glob("*paired"))


@pytest.mark.parametrize("option", [("--futures", "2"), ("--perceptual", "none"), ("--lpips-weights", "file")])
def test_options_of_pairs_mean_nothing_without_them(
    place: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place / "vgan", "--against", place / "data", *option) == 2
    assert f"{option[0]} has no meaning without --paired" in capsys.readouterr().err


def test_paired_and_unpaired_reports_are_refused_one_table(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(tmp_path / "a", place / "vgan-future", "--against", place / "data", "--paired", "--perceptual", "none", "--count", 8)
    judge(tmp_path / "b", place / "vgan", "--against", place / "data", *SMALL, "--count", 32)
    assert run("--compare", tmp_path / "a", tmp_path / "b") == 2
    assert "were made by different protocols and cannot be compared (" in capsys.readouterr().err
