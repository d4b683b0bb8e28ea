"""kinema evaluate, as a person types it, on untrained tiny systems and small datasets."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.data.encode import write_video
from kinema.evaluation import report as reports
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from labelled_dataset import write_labelled
from small_dataset import make_video, write_dataset
from small_weights import Clip400, Frame2048, write_program

SHAPE = (8, 16, 16)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained runs, a dataset of 80 training and 20 test clips of noise, and folders of clips."""
    folder = tmp_path_factory.mktemp("place")
    for name, fps in (("run", 25.0), ("slow", 12.0)):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS["vgan"](SYSTEMS["vgan"].presets["tiny"].config)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, system, stage="test", dataset={"fps": fps}, provenance=provenance())
    write_dataset(folder / "data", 100, per_shard=50, shape=SHAPE)
    write_dataset(folder / "few", 20, shape=SHAPE)
    write_dataset(folder / "wide", 60, per_shard=60, shape=(8, 16, 20))
    write_dataset(folder / "noise", 40, per_shard=40, shape=SHAPE, test_every=1)
    (folder / "files").mkdir()
    for number in range(33):
        write_video(folder / "files" / f"{number:03d}.mp4", make_video(1000 + number, *SHAPE), 25.0)
    np.save(folder / "raw.npy", np.stack([make_video(2000 + number, *SHAPE) for number in range(40)]))
    write_labelled(folder / "unsplit")
    write_labelled(folder / "overlapping", per_video=12, stride=6)
    (folder / "nothing").mkdir()
    (folder / "mixed").mkdir()
    for number, side in enumerate((16, 32)):
        write_video(folder / "mixed" / f"{number}.mp4", make_video(0, 8, side, side), 25.0)
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


def judge(place: Path, out: Path, what: object, *words: object) -> dict:
    assert run(what, "--against", place / "data", "--features", "small_features:Colours", "--out", out, *words) == 0
    return json.loads((out / "report.json").read_text())


def test_a_run_gets_a_report_card(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judge(place, tmp_path / "card", place / "run", "--count", 32, "--seed", 5)
    protocol = report["protocol"]
    assert (protocol["real clips"], protocol["judged clips"], protocol["frames"], protocol["fps"]) == (32, 32, 8, 25.0)
    assert protocol["split"] == "train"
    assert protocol["judged storage"] == "pixels"
    assert len(protocol["features sha256"]) == 64
    assert report["judged"]["clips"] == "seeds 5 to 36"
    assert report["judged"]["system"] == "vgan"
    score = report["scores"]["frechet[small_features:Colours]"]
    assert score["low"] < score["value"] < score["high"]
    assert score["floor"]["count"] == 32
    assert score["floor"]["low"] <= score["floor"]["mean"] <= score["floor"]["high"] < score["value"]
    assert score["times floor"] > 10  # an untrained generator is grey, the data are noise
    assert [count for count, _ in score["by clips"]] == [8, 12, 16, 24, 32]
    assert score["by clips"][-1][1] == score["value"]
    assert report["motion"]["motion against real"] < 0.1
    assert any("nearly still pictures" in warning for warning in report["warnings"])
    assert report["copies"]["training clips"] == 80
    assert report["copies"]["held-out clips"] == 20
    said = capsys.readouterr().out
    assert "frechet[small_features:Colours]" in said
    assert "note: The judged clips are nearly still pictures." in said
    assert f"report card: {tmp_path / 'card' / 'report.html'}" in said.replace("\n", "")
    assert "FVD" not in said
    assert sorted(path.name for path in (tmp_path / "card").iterdir()) == ["report.html", "report.json"]


def test_the_page_is_one_file(place: Path, tmp_path: Path) -> None:
    judge(place, tmp_path, place / "run", "--count", 32)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 2 + 10  # both sides and the nearest pairs
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "frechet[small_features:Colours]" in page
    assert "{{" not in page


def test_the_same_question_gets_the_same_answer(place: Path, tmp_path: Path) -> None:
    one, other = (judge(place, tmp_path / name, place / "run", "--count", 32) for name in "ab")
    for part in ("scores", "protocol", "motion", "copies", "judged"):
        assert one[part] == other[part]
    assert list((place / "data" / "measures").rglob("*.npz"))


def test_held_out_clips_are_near_the_floor_and_copies_are_found(place: Path, tmp_path: Path) -> None:
    """Noise of other seeds is as good as real; training clips themselves are copies."""
    fresh = judge(place, tmp_path / "fresh", place / "raw.npy", "--count", 32)
    assert fresh["scores"]["frechet[small_features:Colours]"]["times floor"] < 3
    assert fresh["copies"]["against held-out"] == pytest.approx(1, abs=0.1)
    assert fresh["motion"]["motion against real"] == pytest.approx(1, abs=0.05)
    assert any("how many frames per second" in warning for warning in fresh["warnings"])
    copied = judge(place, tmp_path / "copied", place / "noise", "--count", 32)  # the first 40 clips of data, all held out
    assert copied["copies"]["against held-out"] < 0.5
    assert any("may be copies" in warning for warning in copied["warnings"])


def test_encoded_clips_are_called_encoded(place: Path, tmp_path: Path) -> None:
    report = judge(place, tmp_path, place / "files")
    assert report["protocol"]["judged storage"] == "h264"
    assert report["protocol"]["judged clips"] == 33
    assert any("stored as h264 and the real ones were not" in warning for warning in report["warnings"])


def test_a_small_real_set_gives_a_smaller_floor_and_says_so(place: Path, tmp_path: Path) -> None:
    report = judge(place, tmp_path, place / "run", "--count", 60)
    assert report["scores"]["kernel[small_features:Colours]"]["floor"]["count"] == 40
    assert any("too small for two disjoint sets of 60 clips: the floor is that of 40" in said for said in report["warnings"])


def test_real_clips_that_share_frames_are_called_so(place: Path, tmp_path: Path) -> None:
    words = ("--features", "small_features:Colours", "--content", "none", "--count", 32)
    assert run(place / "raw.npy", "--against", place / "overlapping", "--out", tmp_path, *words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["against"]["share that overlaps"] > 0.9  # of 64 of the 72, of 8 frames, one every 6
    assert any(" of the real clips share frames with another one: " in warning for warning in report["warnings"])
    alone = judge(place, tmp_path / "alone", place / "raw.npy", "--count", 32)
    assert alone["against"]["share that overlaps"] == 0
    assert not any("share frames" in warning for warning in alone["warnings"])


def test_the_page_plots_the_distance_over_the_number_of_clips(place: Path, tmp_path: Path) -> None:
    """The last point and the floor lie where the report says; the line in 1/N is there for the distance that has one."""
    report = judge(place, tmp_path, place / "raw.npy", "--count", 40)
    page = (tmp_path / "report.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing, score in zip(drawings, report["scores"].values(), strict=True):
        assert drawing.count("<circle") == 5
        assert re.search(
            rf'<circle cx="420\.0" .*<title>40 clips: {re.escape(reports.number(score["value"]))}</title>', drawing
        )
        assert ('class="line"' in drawing) == ("extrapolated" in score)
    assert "extrapolated" in report["scores"]["frechet[small_features:Colours]"]
    assert "straight line in 1/N" in page


def test_every_second_frame(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judge(place, tmp_path / "two", place / "noise", "--count", 32, "--stride", 2)
    assert (report["protocol"]["frames"], report["protocol"]["stride"], report["protocol"]["fps"]) == (4, 2, 25.0)
    assert report["copies"]["nearest"] < 0.1  # levels: the same frames of the same clips, up to rounding
    assert "of which one in 2 is judged" in (tmp_path / "two" / "report.html").read_text()
    judge(place, tmp_path / "one", place / "noise", "--count", 32)
    capsys.readouterr()
    assert run("--compare", tmp_path / "one", tmp_path / "two") == 2
    assert "(frames: 8 and 4; stride: 1 and 2)" in capsys.readouterr().err


def test_i3d_gives_fvd_and_says_what_it_used(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program in place of I3D, which says that it is trusted; clips of 9 frames are the least."""
    write_dataset(tmp_path / "data", 50, per_shard=50, shape=(9, 16, 16))
    weights = write_program(tmp_path / "i3d_torchscript.pt", Clip400)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    words = (tmp_path / "data", "--against", tmp_path / "data", "--split", "all", "--count", 32, "--replicates", 2)
    words = (*words, "--features", "i3d", "--weights", weights, "--out", tmp_path / "card")
    write_dataset(tmp_path / "judged", 40, per_shard=40, shape=(9, 16, 16), test_every=1)
    assert run(tmp_path / "judged", *words[1:]) == 2
    assert "which is none that kinema knows" in capsys.readouterr().err
    assert run(tmp_path / "judged", *words[1:], "--weights-sha256", digest) == 0
    report = json.loads((tmp_path / "card" / "report.json").read_text())
    assert list(report["scores"]) == ["FVD", "KVD"]
    assert report["protocol"]["features"] == "i3d"
    assert report["protocol"]["features sha256"] == digest
    assert report["protocol"]["precision"] == "float32"
    assert not any("not verified" in warning for warning in report["warnings"])
    assert "FVD" in capsys.readouterr().out


def test_inception_gives_fid_over_frames(place: Path, tmp_path: Path) -> None:
    weights = write_program(tmp_path / "inception.pt", Frame2048)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    words = ("--against", place / "data", "--count", 32, "--replicates", 2, "--stride", 4, "--out", tmp_path / "card")
    assert run(place / "noise", *words, "--features", "inception", "--weights", weights, "--weights-sha256", digest) == 0
    report = json.loads((tmp_path / "card" / "report.json").read_text())
    assert list(report["scores"]) == ["FID", "KID"]
    assert report["scores"]["FID"]["floor"]["count"] == 32  # clips, though frames are the samples
    assert any("64 frames are fewer than the 2048 dimensions" in warning for warning in report["warnings"])
    assert "every frame of a clip is a sample" in report["protocol"]["preprocessing"]


def test_equal_protocols_stand_in_one_table_and_others_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {"a": (place / "run",), "b": (place / "noise",), "c": (place / "run", "--seed", 1)}.items():
        judge(place, tmp_path / name, *words, "--count", 32)
    capsys.readouterr()
    assert run("--compare", tmp_path / "a", tmp_path / "b" / "report.json") == 0
    said = capsys.readouterr().out
    assert "floor: real clips" in said
    assert run("--compare", tmp_path / "a", tmp_path / "c") == 2
    complaint = capsys.readouterr().err
    assert "were made by different protocols and cannot be compared (seed: 0 and 1)" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "evaluate wants a run or clips, and none is named"),
        (["run"], "evaluate wants real clips to judge against; give --against DATA"),
        (["nowhere", "--against", "data"], "nowhere does not exist; give a run, a checkpoint file, zoo:NAME"),
        (["zoo:nothing", "--against", "data"], "there is no zoo:nothing; accepted:"),
        (["nothing", "--against", "data"], "nothing holds no checkpoint, no dataset and no clips; files of clips end in"),
        (["run", "--against", "nowhere"], "nowhere is not a directory"),
        (
            ["mixed", "--against", "data"],
            "mixed/1.mp4 is 32x32 and mixed/0.mp4 16x16; give clips of one size, or prepare the folder with kinema prepare",
        ),
        (
            ["run", "--against", "few"],
            "few has 16 clips in the split 'train'; a distance between distributions needs at least 32",
        ),
        (
            ["run", "--against", "data", "--count", "8"],
            "--count 8 is below the least number of clips, 32; give --count 32 to 80",
        ),
        (["run", "--against", "data", "--count", "81"], "data has 80 clips in the split 'train'; give --count 32 to 80"),
        (["files", "--against", "data", "--count", "50"], "files has 33 clips; give --count 32 to 33"),
        (
            ["run", "--against", "wide"],
            "run has clips of 8x16x16 and wide of 8x16x20 (frames x height x width); judge against data",
        ),
        *(
            (
                ["data", "--against", "data", "--split", split],
                "the clips of data are among the real ones, and their distance is none; judge it with --split train",
            )
            for split in ("test", "all")
        ),
        (
            ["unsplit", "--against", "unsplit"],
            "the clips of unsplit are among the real ones, and their distance is none; hold some out: prepare it with",
        ),
        (["slow", "--against", "data"], "slow has 12 frames per second and data 25; judge against data prepared with --fps 12"),
        (["run", "--against", "data", "--features", "nowhere:Net"], "the feature network nowhere:Net cannot be imported"),
        (["run", "--against", "data", "--features", "i3d"], "--features i3d needs --weights FILE: i3d_torchscript.pt from"),
        (
            ["run", "--against", "data", "--features", "inception", "--weights", "missing.pth"],
            "the weights missing.pth cannot be read (No such file or directory); --features inception needs default_1.pt",
        ),
        (["run", "--against", "data", "--features", "i3d", "--weights", "raw.npy"], "raw.npy is damaged or holds no weights"),
        (["run", "--against", "data", "--weights", "raw.npy"], "--weights are for --features i3d and inception"),
        (["run", "--against", "data", "--weights-sha256", "12"], "weights_sha256 is '12'; it must be 64 hexadecimal digits"),
        (["run", "--against", "data", "--stride", "0"], "stride is 0; it must be at least 1"),
        (["run", "--against", "data", "--stride", "8"], "clips of 1 frame have no motion to judge"),
        (["run", "--against", "data", "--workers", "0"], "workers is 0; it must be at least 1"),
        (["run", "--against", "data", "--cluster", "fast"], "cluster option 'fast' must be NAME=VALUE"),
        (["run", "--against", "data", "--seed", "-1"], "seed is -1; it must be 0 or more"),
        (["run", "--against", "data", "--out", "raw.npy"], "raw.npy is a file; --out is a folder"),
        (["--compare", "run"], "--compare wants two reports or more"),
        (
            ["--compare", "run", "slow", "--out", "card"],
            "--compare prints a table of reports that are there and judges nothing;",
        ),
        (
            ["run", "--compare", "run", "slow"],
            "--compare prints a table of reports that are there and judges nothing; leave out the run",
        ),
        (["--compare", "run", "slow"], "run/report.json does not exist; kinema evaluate RUN --against DATA makes a report"),
        (["--compare", "raw.npy", "slow"], "raw.npy is no report of kinema evaluate, or damaged"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"kinema: {sentence}")
    assert said.err.count("\n") == 1
    assert not list(place.glob("*evaluation"))


def test_reports_that_exist_are_kept_unless_told_otherwise(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text("mine")
    words = (place / "run", "--against", place / "data", "--features", "small_features:Colours", "--out", tmp_path)
    assert run(*words) == 2
    assert f"{tmp_path / 'report.json'} exists; give another --out, or --overwrite to replace it" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "mine"
    assert run(*words, "--overwrite") == 0


def test_by_default_the_report_goes_into_the_run(place: Path) -> None:
    words = ("--against", place / "data", "--features", "small_features:Colours", "--count", 32, "--overwrite")
    assert run(place / "run", *words) == 0
    assert (place / "run" / "evaluation" / "report.html").exists()
