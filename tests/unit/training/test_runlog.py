"""The run's directory, its log and what it shows."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kinema.core.errors import CheckpointError, TrainingError
from kinema.training import report, runlog
from kinema.training.health import Finding
from kinema.training.runlog import Description, Display, RunLog

DESCRIPTION = Description(
    system="vgan",
    preset="tiny",
    config={"frames": 8, "augment": ["colour"]},
    training={"steps": 100, "minutes": None},
    options={"flip": False},
    dataset={
        "path": "/data", "fingerprint": "f" * 64, "clips": 40, "held_out": 8, "shape": "8x16x16", "fps": 25.0,
        "labels": ["bow"],
    },
    sessions=[{
        "time": "now", "machine": "Linux", "torch": "2", "python": "3", "command": "kinema train", "device": "2 CPU cores",
        "first_step": 0,
    }],
    weights=10,
    kinema="0.1.0",
)  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    log = RunLog(tmp_path, every=5, batch_size=4)
    yield log
    log.close()


# --- The directory ------------------------------------------------------------------------------------------------------------


def test_a_description_is_read_as_written(tmp_path: Path) -> None:
    runlog.write_description(tmp_path, DESCRIPTION)
    assert asdict(runlog.read_description(tmp_path)) == asdict(DESCRIPTION)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is no run: it has no config.json"),
        ("{", "config.json is damaged"),
        ("{}", "config.json is damaged"),
        ('{"format_version": 99}', "has format 99; this kinema reads up to 1"),
    ],
)
def test_a_bad_description_is_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        runlog.read_description(tmp_path)


def test_a_directory_is_claimed_only_when_nothing_is_lost(tmp_path: Path) -> None:
    new = tmp_path / "a" / "run"
    runlog.claim(new, resume=False, overwrite=False)
    assert new.is_dir()
    runlog.claim(new, resume=False, overwrite=False)  # empty: nothing to lose

    (new / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds files that are no run"):
        runlog.claim(new, resume=False, overwrite=True)
    with pytest.raises(TrainingError, match="nothing to resume"):
        runlog.claim(new, resume=True, overwrite=False)

    (new / "config.json").write_text("{}")
    (new / "samples").mkdir()
    with pytest.raises(TrainingError, match="add --resume to go on, or --overwrite"):
        runlog.claim(new, resume=False, overwrite=False)
    with pytest.raises(TrainingError, match="give one of them"):
        runlog.claim(new, resume=True, overwrite=True)
    runlog.claim(new, resume=True, overwrite=False)
    runlog.claim(new, resume=False, overwrite=True)
    assert [path.name for path in new.iterdir()] == ["notes.txt"]  # only what kinema wrote is lost

    with pytest.raises(TrainingError, match="is a file; --out must be a directory"):
        runlog.claim(new / "notes.txt", resume=False, overwrite=False)
    with pytest.raises(TrainingError, match="cannot write to"):
        runlog.claim(new / "notes.txt" / "below", resume=False, overwrite=False)


def test_a_run_is_trained_by_one_process_at_a_time(log: RunLog, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    log.start(None, 0)
    for resume in (True, False):
        with pytest.raises(TrainingError, match="is being trained by another process; stop that one first"):
            runlog.claim(tmp_path, resume=resume, overwrite=not resume)
    log.close()
    left_over = tmp_path / "resume.pt.tmp-123"
    for resume in (True, False):
        left_over.touch()
        runlog.claim(tmp_path, resume=resume, overwrite=not resume)
        assert not left_over.exists()


def test_a_start_that_was_stopped_before_it_was_a_run_does_not_occupy_the_directory(log: RunLog, tmp_path: Path) -> None:
    """As Ctrl-C leaves it while tensorboard is imported; without the exception every option was refused."""
    log.start(None, 0)
    (tmp_path / "config.json.tmp-123").touch()
    with pytest.raises(TrainingError, match="is being trained by another process"):
        runlog.claim(tmp_path, resume=False, overwrite=False)
    log.close()
    runlog.claim(tmp_path, resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "metrics.jsonl").write_text("{}\n")  # of a run whose config.json was lost: somebody's numbers
    with pytest.raises(TrainingError, match="holds files that are no run"):
        runlog.claim(tmp_path, resume=False, overwrite=True)


# --- Numbers ------------------------------------------------------------------------------------------------------------------


def steps(log: RunLog, first: int, last: int) -> None:
    for step in range(first, last + 1):
        numbers = {"d/real": float(step)} | ({"d/r1": 2.0 * step} if step % 2 == 0 else {})
        log.note(step, "play", step / 10, numbers)


def numbers_of(folder: Path) -> list[dict[str, Any]]:
    timing = {"steps_per_second", "clips_per_second", "waiting_share"}
    return [{name: value for name, value in line.items() if name not in timing} for line in runlog.read_metrics(folder)]


def test_a_line_averages_its_steps_and_only_what_was_given(log: RunLog, tmp_path: Path) -> None:
    log.start(None, 0)
    steps(log, 1, 12)
    log.flush(12, "play", 1.2)
    log.flush(12, "play", 1.2)  # nothing new: no line
    assert numbers_of(tmp_path) == [
        {"step": 5, "stage": "play", "seconds": 0.5, "d/real": 3.0, "d/r1": 6.0},
        {"step": 10, "stage": "play", "seconds": 1.0, "d/real": 8.0, "d/r1": 16.0},
        {"step": 12, "stage": "play", "seconds": 1.2, "d/real": 11.5, "d/r1": 24.0},
    ]


def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = RunLog(tmp_path / "whole", 5, 4)
    stopped = RunLog(tmp_path / "stopped", 5, 4)
    for log in (whole, stopped):
        log.folder.mkdir()
        log.start(None, 0)
    steps(whole, 1, 20)
    steps(stopped, 1, 8)
    state = stopped.state_dict()
    steps(stopped, 9, 16)  # lost: the run is killed before it saves again
    stopped.close()
    with (tmp_path / "stopped" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 17, "st')  # in the middle of a line
    (tmp_path / "stopped" / "samples").mkdir()
    for name in ("000008.png", "000008-streams.mp4", "000016.png", "000016-streams.mp4"):
        (tmp_path / "stopped" / "samples" / name).touch()

    again = RunLog(tmp_path / "stopped", 5, 4)
    again.start(json.loads(json.dumps(state)), 8)
    steps(again, 9, 20)
    for log in (whole, again):
        log.close()
    assert numbers_of(tmp_path / "stopped") == numbers_of(tmp_path / "whole")
    assert sorted(path.name[:6] for path in (tmp_path / "stopped" / "samples").iterdir()) == ["000008", "000008"]


def test_a_log_that_lost_lines_cannot_be_resumed(log: RunLog, tmp_path: Path) -> None:
    log.start(None, 0)
    steps(log, 1, 10)
    state = log.state_dict()
    log.close()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="was cut short"):
        RunLog(tmp_path, 5, 4).start(state, 10)


def test_a_full_disk_leaves_whole_lines(log: RunLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.start(None, 0)
    steps(log, 1, 5)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    file = log._file
    assert file is not None

    class Full:
        def write(self, line: bytes) -> int:
            file.write(line[:7])
            return 7

        def close(self) -> None:
            file.close()

    monkeypatch.setattr(log, "_file", Full())
    with pytest.raises(CheckpointError, match=r"metrics.jsonl cannot be written: No space left .* go on with --resume"):
        steps(log, 6, 10)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_numbers_that_are_not_finite_become_null(log: RunLog, tmp_path: Path) -> None:
    log.start(None, 0)
    log.write(1, "play", {"a": float("nan"), "b": 1 / 3})
    log.report(1, "play", [Finding("finite numbers", None, "bad", "NaN")])
    assert [line.get("b", line.get("health")) for line in runlog.read_metrics(tmp_path)] == [
        0.333333,
        [{"name": "finite numbers", "value": None, "verdict": "bad", "sentence": "NaN"}],
    ]


def test_waiting_is_told_from_working(log: RunLog, tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.02)
            yield number

    log.start(None, 0)
    for number in log.waiting_for(slow()):
        time.sleep(0.02)
        log.note(number + 1, "play", 0.1, {})
    line = runlog.read_metrics(tmp_path)[0]
    assert 0.2 < line["waiting_share"] < 0.8
    assert line["steps_per_second"] <= 25
    assert line["clips_per_second"] == pytest.approx(4 * line["steps_per_second"], rel=1e-4)


# --- Terminal, signals ------------------------------------------------------------------------------------------------


def test_looks_become_rarer() -> None:
    assert [step for step in range(2001) if runlog.is_look_step(step)] == [
        20, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000,
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert runlog.clock(seconds) == text


def test_the_display_prints_plain_lines_with_rate_and_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(runlog.time, "monotonic", lambda: now[0])
    display = Display(batch_size=16)
    display.begin()
    for step in range(1, 41):
        now[0] += 0.5
        display.update(step, step / 100, None, {"d/real": 0.5, "d/gradient_norm": 9.0})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # one at once, then one in ten seconds
    assert lines[1] == "step 21 · 21% · 2 steps/s, 32 clips/s · 0:40 left · d/real 0.5"


def test_the_first_signal_is_a_wish_and_the_second_an_order() -> None:
    before = signal.getsignal(signal.SIGINT)
    with runlog.StopSignals() as signals:
        assert not signals.anywhere(torch.device("cpu"))
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.anywhere(torch.device("cpu"))
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# --- The page -----------------------------------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_files_alone_and_asks_nobody(log: RunLog, tmp_path: Path) -> None:
    runlog.write_description(tmp_path, DESCRIPTION)
    report.write_report(tmp_path)  # before anything happened
    log.start(None, 0)
    steps(log, 1, 20)
    log.report(20, "play", [Finding("mask", 0.01, "bad", "Dead <stream>.")], {"samples": [], "streams": ["mask", "result"]})
    log.end(20, "play", "stopped", "Stopped by Ctrl-C.")
    report.write_report(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "http" not in page.replace("https://www.w3.org", "")
    assert "Dead &lt;stream&gt;." in page
    for expected in ("Stopped by Ctrl-C.", "samples/000020-streams.mp4", "kinema train", 'class="curve"', "Numbers"):
        assert expected in page


def test_the_page_names_stages_players_and_terms_in_words(log: RunLog, tmp_path: Path) -> None:
    runlog.write_description(tmp_path, DESCRIPTION)
    log.start(None, 0)
    log.write(0, "latent_scale", {"clips_read": 24.0})
    log.note(10, "face", 2.0, {"face_generator/feature_matching": 0.5})
    found = [Finding("weights of face_generator", 0.1, "ok", "They moved."), Finding("stage face_local", None, "watch", "No.")]
    log.report(10, "face", found, {"samples": [], "still_frames": ["real_frame"]})
    report.write_report(tmp_path)
    page = (tmp_path / "index.html").read_text()
    text = re.sub(r"<script.*?</script>|<[^>]*>", "\n", page, flags=re.DOTALL)
    for name in ("weights of face generator", "stage face local", "Face generator", "feature matching", "Latent scale"):
        assert f"\n{name}\n" in text
    assert 'aria-label="face generator feature matching over the steps"' in page
    assert not re.findall(r"(?:face|still|real|latent|clips|feature)_\w+", text)


@pytest.mark.parametrize(
    ("stages", "labels"),
    [
        (
            ["compressor", "compressor", "latent_scale", "transformer"],
            ["compressor · 4", "latent scale · 8", "transformer · 1,200"],
        ),
        (["play"] * 4, ["4", "8", "1,200"]),
    ],
)
def test_sheets_are_labelled_once_each_and_with_the_stage_where_there_are_several(
    log: RunLog, tmp_path: Path, stages: list[str], labels: list[str]
) -> None:
    """The closed-form third stage takes no step, so that its sheets lie where those of the look before it did."""
    runlog.write_description(tmp_path, DESCRIPTION)
    log.start(None, 0)
    kinds = [("samples", "streams")] * 2 + [("samples",)] * 2
    for step, stage, drawn in zip((4, 8, 8, 1200), stages, kinds, strict=True):
        log.report(step, stage, [], {kind: [] for kind in drawn})
    report.write_report(tmp_path)
    page = (tmp_path / "index.html").read_text()
    shown = re.findall(r'<span>([^<]*)</span><img loading="lazy" src="samples/(\d+)\.png"', page)
    assert shown == list(zip(labels, ("000004", "000008", "001200"), strict=True))
    assert f">{labels[-1]}</output>" in page
    moments = report.facts(tmp_path)["moments"]
    assert [list(moment["sheets"]) for moment in moments] == [["samples", "streams"]] * 2 + [["samples"]]


def test_ticks_are_round() -> None:
    assert report.nice_ticks(0.13, 0.87) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert report.nice_ticks(0, 5000) == [0, 2000, 4000]


def test_an_outlier_does_not_flatten_a_curve() -> None:
    low, high = report.span_of([1.0] * 100 + [2.0] * 99 + [1e6])
    assert (low, high) == pytest.approx((0.95, 2.05))
    flat = report.chart("loss", [(step, 3.0) for step in range(1, 300)])
    assert len(flat.points) == report.BINS
    assert flat.last == 3.0


@pytest.mark.parametrize(
    ("sheet", "shape", "words"),
    [
        (None, "128 / 16", "8 frames of it"),  # the page is written before the first sheet
        ((128, 34), "128 / 16", "How the first sample developed: 8 frames of it at every step."),
        ((80, 34), "80 / 16", "5 frames of it"),  # of clips of 5 frames, cut off below if 8 were taken for granted
        ((142, 16), "142 / 16", "How the first samples developed."),  # images, with gaps
    ],
)
def test_the_row_of_a_sheet_is_shown_whole(tmp_path: Path, sheet: tuple[int, int] | None, shape: str, words: str) -> None:
    if sheet:
        Image.new("RGB", sheet).save(tmp_path / "000005.png")
    row = report.first_row(DESCRIPTION.dataset, [tmp_path / "000005.png", tmp_path / "000009.png"])
    assert row["shape"] == shape
    assert words in row["developed"]
