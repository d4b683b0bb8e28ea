"""kinema compare, as a person types it: tiny systems on a small dataset, trained within this process except where said."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kinema.cli import compare, main
from kinema.core.shape import ClipShape
from kinema.data.tags import read_tags, signature
from kinema.evaluation import features, trainings
from kinema.evaluation.clips import Source
from kinema.systems.vgan import VGAN
from kinema.training import runlog
from small_dataset import write_dataset

SHAPE = (8, 16, 16)
FAST = ("--preset", "tiny", "--count", 32, "--features", "small_features:Colours", "--replicates", 2, "--device", "cpu")
SMALL = (*FAST, "--clips-seen", 8, "--seeds", 1)
SYSTEMS = ("--systems", "vgan:one-stream,autoencoder-mixture")


def here(words: Sequence[str], log: Path, meanwhile: Callable[[], None]) -> tuple[int, float | None]:
    """Stand in for `trainings.in_own_process`: starting Python anew takes seconds."""
    meanwhile()
    with log.open("a") as file, contextlib.redirect_stderr(file):
        return main(list(words)), 100.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 clips to train on and 40 held out; and clips that do not fit."""
    folder = tmp_path_factory.mktemp("compare")
    write_dataset(folder / "wide", 60, per_shard=60, shape=(8, 16, 20))
    write_dataset(folder / "long", 60, per_shard=60, shape=(16, 16, 16))
    write_dataset(folder / "few", 20, shape=SHAPE)
    write_dataset(folder / "unlabelled", 60, per_shard=60, shape=SHAPE, labels=())
    return write_dataset(folder / "data", 120, per_shard=60, shape=SHAPE, test_every=3)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contestants, one judged on its way; never to be changed: copy it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "in_own_process", here)
        assert run(data, out, *SYSTEMS, "--points", 2) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy, whose trainings may not be told where they are: the commands name the folder."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def run(data: Path, out: Path, *words: object) -> int:
    return main(["compare", *(str(word) for word in ("--data", data, "--out", out, *SMALL, *words))])


def board_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "leaderboard.json").read_text())


def never(*_: object) -> tuple[int, float | None]:
    raise AssertionError("nothing was to be trained")


# --- What it leaves -----------------------------------------------------------------------------------------------------------


def test_the_real_clips_of_the_page_are_spread_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours in a dataset are of one film: the first eight would all be alike."""
    asked: list[int] = []

    def read(indices: Sequence[int]) -> list[Any]:
        asked.extend(indices)
        return [np.zeros((2, 16, 16, 3), np.uint8) for _ in indices]

    source = Source("real", ClipShape(2, 16, 16), 8.0, "pixels", 40, read, {"split": "train"})
    monkeypatch.setattr("kinema.evaluation.clips.open_clips", lambda _: source)
    compare.judge_held_out(SimpleNamespace(data="data", count=32), tmp_path, None)  # type: ignore[arg-type]
    assert asked == [0, 6, 11, 17, 22, 28, 33, 39]
    assert (tmp_path / "real.webp").exists()


def test_everybody_is_trained_and_judged_alike(finished: Path) -> None:
    board = board_of(finished)
    assert {entry["name"] for entry in board["contestants"]} == {"vgan:one-stream", "autoencoder-mixture"}
    assert (board["done"], board["parts"], board["protocol"]["judged clips"]) == (4, 4, 32)
    assert board["held out"]["scores"][board["score"]]["value"] < board["contestants"][0]["interval"][0]
    for entry in board["contestants"]:
        (seed,) = entry["seeds"]
        first, last = seed["points"]
        assert [point["cost"]["steps"] for point in (first, last)] == [1, 2]
        assert last["cost"]["clips"] == 8
        assert last["cost"]["memory"] == 100.0
        assert last["cost"]["clips per second"] > 0
        assert 0 < last["cost"]["sampling parameters"] < last["cost"]["parameters"]
        assert first["scores"] != last["scores"]
        assert (finished / last["report"]).is_file()
        assert seed["command"].startswith("kinema train vgan")
    settings = json.loads((finished / "vgan-one-stream" / "seed-0" / "run" / "config.json").read_text())
    assert (settings["config"]["generator_streams"], settings["training"]["seed"]) == ("one", 0)
    assert len(settings["sessions"]) == 2  # the second slice went on with the first


def test_clips_that_are_looked_at_again_were_made_once() -> None:
    """A judge looks at some a second time, which costs nothing where they are remembered."""
    clock = compare._Clock()
    read = clock.timing(lambda seeds: [time.sleep(0.01 * (not clock.made)) for _ in seeds])
    for seeds in ((0, 1, 2, 3), (0, 1), (2, 3)):
        assert len(read(seeds)) == len(seeds)
    assert clock.rate == pytest.approx(4 / clock.seconds)
    assert clock.seconds > 0.03


def test_what_a_gpu_held_is_a_cost(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most of both sessions, the second of which held less; without a GPU there is no such column."""
    held = iter((700.0, 500.0))
    monkeypatch.setattr(trainings, "in_own_process", here)
    monkeypatch.setattr(runlog, "peak_memory", lambda device: next(held))
    assert run(data, tmp_path, "--systems", "vgan:one-stream", "--points", 2, "--finalists", 0) == 0
    (entry,) = board_of(tmp_path)["contestants"]
    assert [point["cost"]["device memory"] for point in entry["seeds"][0]["points"]] == [700, 700]
    assert "<th>peak MiB of GPU</th>" in (tmp_path / "index.html").read_text()
    assert "500 MiB of its memory at most" in (tmp_path / "vgan-one-stream" / "seed-0" / "run" / "index.html").read_text()


def test_the_page_is_one_file_with_moving_clips(finished: Path) -> None:
    page = (finished / "index.html").read_text()
    assert page.count("data:image/webp;base64,") == 1 + 2 + 2  # real clips, both at their end and on their way
    links = re.findall(r"(?:src|href)=\"(?!data:)([^\"]*)\"", page)
    assert links
    assert all((finished / link).is_file() for link in links)  # report cards
    for words in ("held-out real clips", "floor", "Quality against clips seen", "peak MiB", "kinema train vgan-autoencoder"):
        assert words in page
    assert "peak MiB of GPU" not in page
    assert "{{" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_clips_of_contestants_say_that_they_were_generated_and_real_ones_do_not(finished: Path) -> None:
    marked = {file.relative_to(finished).parts[0]: signature(read_tags(file)) is not None for file in finished.rglob("*.webp")}
    assert marked == {"real.webp": False, "held-out": False, "vgan-one-stream": True, "autoencoder-mixture": True}


def test_a_study_of_the_best_is_made(finished: Path) -> None:
    study = json.loads((finished / "study" / "study.json").read_text())
    assert sorted(study["systems"]) == ["autoencoder-mixture", "real", "vgan:one-stream"]


# --- Going on -----------------------------------------------------------------------------------------------------------------


def test_the_same_command_repeats_nothing_and_shows_the_ranking(
    copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainings, "in_own_process", never)
    assert run(data, copy, *SYSTEMS, "--points", 2) == 0
    said = capsys.readouterr().out
    assert "0 of 4 parts to do" in said
    for words in ("autoencoder-mixture", "held-out real clips", "floor: real clips", "One seed each", "leaderboard: "):
        assert words in said


def test_stopping_at_any_moment_loses_nothing(
    copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between training and judging: only the judging is done."""
    shutil.rmtree(copy / "vgan-one-stream" / "seed-0" / "point-2")
    monkeypatch.setattr(trainings, "in_own_process", never)
    assert run(data, copy, *SYSTEMS, "--points", 2) == 0
    assert "1 of 4 parts to do" in capsys.readouterr().out
    assert (copy / "vgan-one-stream" / "seed-0" / "point-2" / "report.json").exists()


def test_a_training_that_somebody_stopped_stops_the_comparison(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "in_own_process", lambda *_: (130, None))
    assert run(data, tmp_path / "out", *SYSTEMS, "--points", 1) == 130
    assert not list((tmp_path / "out").rglob("failed.json"))


def test_a_failure_stops_nobody_else_and_is_tried_again(
    copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(words: Sequence[str], log: Path, meanwhile: Callable[[], None]) -> tuple[int, float | None]:
        if words[1] == "vgan":
            log.write_text("vgan (tiny): 12 weights\nkinema: generator/adversarial became NaN at step 3\n")
            return 2, None
        return here(words, log, meanwhile)

    for name in ("vgan-one-stream/seed-0", "autoencoder-mixture/seed-0/point-2"):
        shutil.rmtree(copy / name)
    monkeypatch.setattr(trainings, "in_own_process", failing)
    assert run(data, copy, *SYSTEMS, "--points", 2) == 1
    said = capsys.readouterr().out
    assert said.count("vgan:one-stream, seed 0, 1 of 2: failed: generator/adversarial became NaN at step 3") == 1
    ranked, failed = board_of(copy)["contestants"]
    assert (ranked["name"], ranked["rank"]) == ("autoencoder-mixture", [1, 1])
    assert failed["seeds"][0]["failure"] == "generator/adversarial became NaN at step 3"
    assert "vgan:one-stream, seed 0: generator/adversarial became NaN at step 3" in (copy / "index.html").read_text()

    monkeypatch.setattr(trainings, "in_own_process", here)
    assert run(data, copy, *SYSTEMS, "--points", 2) == 0
    assert [entry["seeds"][0]["failure"] for entry in board_of(copy)["contestants"]] == [None, None]


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        ("step 1\nkinema: no room\n", 2, "no room"),
        ("Traceback\n  line\nMemoryError: 3 GB\n", 1, "MemoryError: 3 GB"),
        ("", 1, "the training ended with status 1"),
        ("step 1\n", -9, "the training was killed by SIGKILL; was there too little memory?"),
    ],
)
def test_a_failure_has_a_reason(said: str, status: int, sentence: str) -> None:
    assert trainings.reason(said, status) == sentence


# --- Bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "compare wants contestants; give --systems"),
        (["--systems", "vgan:two-streams"], "vgan has no variant 'two-streams'; did you mean 'two-stream'?"),
        (["--systems", "gan"], "there is no system 'gan'; did you mean 'vgan'?"),
        (["--systems", "vgan@huge"], "vgan@huge: vgan has no preset 'huge'; accepted:"),
        (["--systems", "vgan-future"], "vgan-future: vgan-future cannot generate; systems that can: vgan"),
        (["--contestant", "wide=vgan --widht 8"], "wide: Unrecognized options: --widht"),
        (["--systems", "vgan", "--options=--frames 10"], "vgan: frames is 10; it must be a multiple of size / 4"),
        (["--systems", "vgan", "--options=--steps 9"], "--options has --steps, which is the same for every contestant"),
        (["--systems", "vgan", "--options", "'"], "--options cannot be read: No closing quotation"),
        (["--systems", "vgan", "--data", "nowhere"], "nowhere is not a directory"),
        (["--systems", "vgan", "--data", "wide"], "vgan: wide holds clips of 8x16x20, and vgan with these settings trains on"),
        (["--systems", "vgan", "--data", "long"], "vgan: vgan has clips of 8x16x16 and long of 16x16x16"),
        (["--systems", "vgan", "--data", "few"], "vgan: few has 16 clips in the split 'train'; a distance between"),
        (["--systems", "vgan", "--count", "81"], "vgan: data has 80 clips in the split 'train'; give --count 32 to 80"),
        (["--systems", "vgan", "--minutes", "3"], "a comparison has one budget; give --minutes or --clips-seen"),
        (["--systems", "vgan", "--points", "9"], "clips_seen is 8; it must be a batch or more for every point"),
        (["--systems", "vgan", "--points", "0"], "points is 0; it must be from 1 to 100"),
        (["--systems", "vgan", "--seeds", "0"], "seeds is 0; it must be from 1 to 100"),
        (["--systems", "vgan", "--features", "i3d"], "--features i3d needs --weights FILE: i3d_torchscript.pt from"),
        (["--systems", "vgan", "--features", "nowhere:Net"], "the feature network nowhere:Net cannot be imported"),
        (["--systems", "vgan", "--out", "data"], "data holds files that are no comparison; give --out another folder"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    data: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    monkeypatch.setattr(trainings, "in_own_process", never)
    assert run(Path("data"), Path("out"), "--points", 1, *words) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"kinema: {sentence}")
    assert complaint.count("\n") == 1
    assert not (data.parent / "out").exists()


def test_labels_that_a_system_needs_must_be_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VGAN, "needs", frozenset({"video", "label"}))
    assert run(data.parent / "unlabelled", tmp_path / "out", "--systems", "vgan", "--points", 1) == 2
    assert "vgan: vgan learns from label and video; the clips of" in capsys.readouterr().err


def test_a_changed_command_is_refused(finished: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, finished, *SYSTEMS, "--points", 2, "--seed", 3) == 2
    complaint = capsys.readouterr().err
    assert "holds another comparison (seed: 0 -> 3); give the command that began it, another --out, or --overwrite" in complaint


def test_it_ranks_by_published_features_when_given_their_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small network in place of the published one, whose 2,048 numbers take a minute."""
    asked = []

    def small(name: str, device: torch.device, **given: Any) -> features.FeatureNetwork:
        asked.append((name, given))
        return features.UserFeatures("small_features:Colours", device)

    monkeypatch.setattr(trainings, "in_own_process", here)
    monkeypatch.setattr(features, "open_features", small)
    words = ("--features", "inception", "--weights", tmp_path / "w.pt", "--weights-sha256", "0" * 64, "--finalists", 0)
    assert run(data, tmp_path / "out", "--systems", "vgan:one-stream", "--points", 1, *words) == 0
    assert asked == [("inception", {"weights": tmp_path / "w.pt", "weights_sha256": "0" * 64})]
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["weights"] == str(tmp_path / "w.pt")


# --- Processes ----------------------------------------------------------------------------------------------------------------


def test_a_training_has_a_process_and_a_log_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    status, _ = trainings.in_own_process(["train", "nothing"], log, lambda: None)
    assert status == 2
    assert "there is no system 'nothing'" in log.read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is known on Linux only")
def test_memory_is_that_of_the_training_alone(tmp_path: Path) -> None:
    held = np.ones(2**28, np.uint8)  # 256 MiB of this process, which is large anyhow
    status, memory = trainings.in_own_process(["--version"], tmp_path / "log", lambda: None)
    assert status == 0
    assert memory is not None
    assert 1 < memory < held.nbytes / 2**20


def test_an_interrupted_comparison_leaves_no_training_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def begin(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        begun.append(original(*arguments, **options))
        return begun[0]

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainings.subprocess, "Popen", begin)
    long = ["prepare", "performers", "--clips", "100000", "--out", str(tmp_path / "data")]
    with pytest.raises(KeyboardInterrupt):
        trainings.in_own_process(long, tmp_path / "log", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0].pid, 0)


@pytest.mark.slow
def test_killed_while_it_trains_it_goes_on(data: Path, tmp_path: Path) -> None:
    """In processes of its own, ended by SIGTERM: the run is saved, and the same command finishes it."""
    out = tmp_path / "out"
    words = [str(word) for word in ("--data", data, "--out", out, *FAST, "--minutes", 0.5, "--seeds", 1, "--points", 1)]
    command = [sys.executable, "-m", "kinema", "compare", *words, "--systems", "vgan:one-stream"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["src", "tests"])}
    metrics = out / "vgan-one-stream" / "seed-0" / "run" / "metrics.jsonl"
    with subprocess.Popen(command, env=environment) as process:
        while not (metrics.exists() and '"seconds"' in metrics.read_text()):
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    assert '"end": "stopped"' in metrics.read_text()
    before = json.loads([line for line in metrics.read_text().splitlines() if '"seconds"' in line][-1])["step"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    (point,) = board_of(out)["contestants"][0]["seeds"][0]["points"]
    assert point["cost"]["minutes"] == pytest.approx(0.5, abs=0.1)
    assert point["cost"]["steps"] > before
