"""kinema units, as a person types it, on untrained tiny systems and small datasets."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kinema.cli import main
from kinema.cli import units as cli_units
from kinema.evaluation import unit_sheet, units
from kinema.evaluation.layers import Layer
from kinema.evaluation.unit_sheet import Footage
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import write_dataset

SHAPE = (8, 16, 16)
LAYER = "discriminator.features.0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained runs of two systems, and datasets of noise."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("vgan", "vgan-future"):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS[name](SYSTEMS[name].presets["tiny"].config)
        save_checkpoint(folder / name / "checkpoint.safetensors", system, stage="test", steps=7, provenance=provenance())
    write_dataset(folder / "data", 20, per_shard=20, shape=SHAPE)
    write_dataset(folder / "people", 12, per_shard=12, shape=SHAPE, people=True, labels=())
    write_dataset(folder / "wide", 8, shape=(8, 16, 20))
    (folder / "file").touch()
    return folder


def run(*words: object) -> int:
    return main(["units", *(str(word) for word in words)])


def sheet(place: Path, out: Path, *words: object, of: str = "vgan", data: str = "data") -> tuple[dict, str]:
    assert run(place / of, "--data", place / data, "--out", out, "--occlusions", 27, *words) == 0
    return json.loads((out / "units.json").read_text()), (out / "units.html").read_text()


def test_space_time_units_get_a_sheet(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, page = sheet(place, tmp_path, "--layer", LAYER, "--top-units", 2, "--top", 4)
    assert report["layer"] == {
        "name": LAYER,
        "units": 4,
        "map": [4, 8, 8],
        "sees": "frames, height, width",
        "receptive field": [4, 4, 4],
        "stride": [2, 2, 2],
    }
    assert report["network"]["weights"] == "trained, 7 steps"
    assert len(report["network"]["checkpoint sha256"]) == 64
    assert report["data"]["clips"] == 20
    assert report["data"]["shown once"] == "clip"  # the data have one source
    assert [len(unit["clips"]) for unit in report["units"]] == [4, 4]
    for unit in report["units"]:
        highest = [clip["highest"] for clip in unit["clips"]]
        assert highest == sorted(highest, reverse=True)
        assert len({clip["key"] for clip in unit["clips"]}) == 4
        assert unit["label share"] in (0.5, 0.75, 1)
        assert all(1 <= side <= 4 for side in unit["receptive field"]["extent"])
        assert all(0 < clip["lit"] < 0.2 for clip in unit["clips"][:1])
    order = [unit["selectivity"] for unit in report["units"]]
    assert order == sorted(order, reverse=True)
    assert len(report["summary"]["selectivity"]) == 4
    assert 0.5 < report["summary"]["label share by chance"] < 0.8  # two labels, four clips
    assert page.count("data:image/webp;base64,") == 2 * 3  # clips, and two pictures of the receptive field
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "{{" not in page
    said = capsys.readouterr().out
    assert f"sheet: {tmp_path / 'units.html'}" in said.replace("\n", "")
    assert "most frequent label of the top clips:" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["units.html", "units.json"]


def test_units_of_pictures_are_stills(place: Path, tmp_path: Path) -> None:
    report, page = sheet(place, tmp_path, "--layer", "encoder.features.0", "--units", "2,0", of="vgan-future", data="people")
    assert report["layer"]["sees"] == "height, width of the first frame"
    assert {unit["unit"] for unit in report["units"]} == {0, 2}
    assert all(len(unit["receptive field"]["extent"]) == 2 for unit in report["units"])
    assert all(unit["figure in lit region"] is not None for unit in report["units"])  # there are masks
    assert "label share" not in report["summary"]  # and no labels
    assert page.count("data:image/webp;base64,") == 2 * 2


def test_the_same_command_gives_the_same_sheet(place: Path, tmp_path: Path) -> None:
    words = ("--layer", LAYER, "--clips", 9, "--seed", 3, "--occluder", "noise", "--top-units", 2, "--top", 3)
    (one, page), (other, again) = (sheet(place, tmp_path / name, *words) for name in "ab")
    for report in (one, other):
        report.pop("provenance")
    assert one == other
    assert pictures(page) == pictures(again)
    assert sheet(place, tmp_path / "c", *words[:-2], "--seed", 4)[0]["units"] != one["units"]


def test_untrained_weights_are_others(place: Path, tmp_path: Path) -> None:
    words = ("--layer", LAYER, "--top-units", 1, "--top", 3)
    trained, _ = sheet(place, tmp_path / "a", *words)
    reports = [sheet(place, tmp_path / f"{n}", *words, "--random", "--seed", n % 2)[0] for n in range(3)]
    assert reports[0]["network"]["weights"] == "untrained, seed 0"
    assert reports[0]["units"] == reports[2]["units"] != reports[1]["units"]
    assert trained["units"] != reports[0]["units"]


def test_without_occlusions_there_are_no_receptive_fields(place: Path, tmp_path: Path) -> None:
    assert run(place / "vgan", "--data", place / "data", "--out", tmp_path, "--occlusions", 0, "--top-units", 1) == 0
    report = json.loads((tmp_path / "units.json").read_text())
    assert report["layer"]["name"] == "discriminator.features.1"  # the last hidden one
    assert "receptive field" not in report["units"][0]
    assert "receptive field" not in (tmp_path / "units.html").read_text().partition("<section>")[0]


def test_layers_are_listed_without_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place / "vgan-future", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r" discriminator.features.0 +4 +4x8x8 +4x4x4 +2x2x2", line) for line in lines)
    assert any(re.match(r" encoder.features.1 +8 +4x4 +10x10 +4x4 +default", line) for line in lines)


def test_the_sheet_goes_into_the_run_by_default(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (place / "vgan", "--data", place / "data", "--occlusions", 0, "--top-units", 1, "--top", 2)
    assert run(*words) == 0
    assert (place / "vgan" / "units" / "units.html").exists()
    assert run(*words) == 2
    assert f"{place / 'vgan' / 'units' / 'units.json'} exists; give another --out, or --overwrite" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 0


# --- Stopping and going on ----------------------------------------------------------------------------------------------------

LONG = ("--layer", LAYER, "--top-units", 3, "--top", 4, "--occlusions", 27)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def pictures(page: str) -> list[str]:
    return re.findall(r"data:image/webp;base64,[^\"]+", page)


def clips_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the clips that are read from now on."""
    found, original = list[int](), Footage.read

    def read(self: Footage, numbers: Sequence[int]) -> list[Any]:
        found.extend(numbers)
        return original(self, numbers)

    monkeypatch.setattr(Footage, "read", read)
    return found


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> tuple[dict, str]:
    """The sheet of `LONG`."""
    return sheet(place, place / "uninterrupted", *LONG)


def assert_same(found: tuple[dict, str], expected: tuple[dict, str]) -> None:
    """Two sheets say and show the same."""
    reports = [{name: value for name, value in report.items() if name != "provenance"} for report, _ in (found, expected)]
    assert reports[0] == reports[1]
    assert pictures(found[1]) == pictures(expected[1])


def test_stopped_among_the_units_it_goes_on_with_the_next(
    place: Path,
    tmp_path: Path,
    uninterrupted: tuple[dict, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls, original = list[int](), units.receptive_field

    def second_stops(layer: Layer, unit: int, *rest: Any) -> units.Field:
        calls.append(unit)
        return stop() if len(calls) == 2 else original(layer, unit, *rest)

    monkeypatch.setattr(units, "receptive_field", second_stops)
    words = (place / "vgan", "--data", place / "data", "--out", tmp_path / "out", *LONG)
    assert run(*words) == 130
    assert capsys.readouterr().err == "kinema: stopped\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unfinished"]  # no half of a sheet
    seen = clips_read(monkeypatch)
    assert run(*words) == 0
    found = json.loads((tmp_path / "out" / "units.json").read_text()), (tmp_path / "out" / "units.html").read_text()
    assert_same(found, uninterrupted)
    order = [unit["unit"] for unit in found[0]["units"]]
    assert calls == [order[0], order[1], order[1], order[2]]  # the first is not asked again
    assert len(seen) <= 2 * 2 * 4 + 3 * 4  # twice the top clips of two units, and what is shown: not all of the clips
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["units.html", "units.json"]


def test_stopped_among_the_clips_it_goes_on_with_the_next(
    place: Path, tmp_path: Path, uninterrupted: tuple[dict, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept after every portion, as it is after ten seconds; stopped after two of three."""
    original = units._answers
    portions = iter([original, original, stop])
    with monkeypatch.context() as patch:
        patch.setattr(units, "SAVE_SECONDS", 0)
        patch.setattr(units, "_answers", lambda *words: next(portions)(*words))
        assert run(place / "vgan", "--data", place / "data", "--out", tmp_path, *LONG) == 130
    seen = clips_read(monkeypatch)
    assert_same(sheet(place, tmp_path, *LONG), uninterrupted)
    assert seen[:4] == [16, 17, 18, 19]
    assert len(seen) <= 4 + 3 * 2 * 4 + 3 * 4


def test_untrained_weights_settle_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*LONG, "--random")
    expected = sheet(place, tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        patch.setattr(units, "receptive_field", stop)
        assert run(place / "vgan", "--data", place / "data", "--out", tmp_path / "out", *words) == 130
    seen = clips_read(monkeypatch)
    assert_same(sheet(place, tmp_path / "out", *words), expected)
    assert len(seen) <= 3 * 2 * 4 + 3 * 4  # settling shows 128 clips


@pytest.mark.parametrize("other", [("--seed", 3), ("--share", 0.1), ("--clips", 12), ("--random",), ("--top", 3)])
def test_what_was_kept_for_another_question_is_not_used(
    place: Path, tmp_path: Path, uninterrupted: tuple[dict, str], monkeypatch: pytest.MonkeyPatch, other: tuple[Any, ...]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(unit_sheet, "selectivity", lambda highest: stop())  # of the summary: all units are done
        assert run(place / "vgan", "--data", place / "data", "--out", tmp_path, *LONG, *other) == 130
    assert len(list((tmp_path / "unfinished").glob("unit-*.npz"))) == 3
    assert_same(sheet(place, tmp_path, *LONG), uninterrupted)


@pytest.mark.slow
def test_killed_it_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, ended by SIGKILL when a unit is done."""
    words = ("--layer", LAYER, "--occlusions", 4000, "--top-units", 4)
    command = [sys.executable, "-m", "kinema", "units", place / "vgan", "--data", place / "data", "--out", tmp_path, *words]
    with subprocess.Popen([str(word) for word in command], env=os.environ | {"PYTHONPATH": "src"}) as process:
        while not list((tmp_path / "unfinished").glob("unit-*.npz")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "units.json").exists()
    done, asked, original = list((tmp_path / "unfinished").glob("unit-*.npz")), list[int](), units.receptive_field

    def counted(layer: Layer, unit: int, *rest: Any) -> units.Field:
        asked.append(unit)
        return original(layer, unit, *rest)

    monkeypatch.setattr(units, "receptive_field", counted)
    assert len(sheet(place, tmp_path, *words)[0]["units"]) == 4
    assert len(asked) == 4 - len(done)


# --- Bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vgan"], "units wants clips to look at; give --data DATA"),
        (["nowhere", "--data", "data"], "nowhere does not exist; give a run directory"),
        (
            ["vgan", "--data", "data", "--layer", "discriminator.features.3"],
            "vgan has no convolutional layer 'discriminator.features.3'; did you mean 'discriminator.features.",
        ),
        (["vgan", "--layer", "generator", "--list"], "vgan has no convolutional layer 'generator'; "),
        (["vgan", "--data", "nowhere"], "nowhere is not a directory"),
        (
            ["vgan", "--data", "wide"],
            "wide holds clips of 8x16x20 and vgan was trained on 8x16x16 (frames x height x width); prepare the data",
        ),
        (["vgan", "--data", "data", "--clips", "21"], "data has 20 clips; give --clips 20 or fewer"),
        (["vgan", "--data", "data", "--clips", "9", "--split", "test"], "data has 4 clips in the split 'test'; give --clips 4"),
        (["vgan", "--data", "data", "--split", "test"], "4 clips are fewer than the 6 that a unit is shown with; give --top 4"),
        (["vgan", "--data", "data", "--clips", "3"], "3 clips are fewer than the 6 that a unit is shown with; give --top 3"),
        (["vgan", "--data", "data", "--units", "0,8"], "the layer has no unit 8; its units are 0 to 7"),
        (["vgan", "--data", "data", "--units", "0-8"], "--units '0-8' is no list of units; write for example 12,57"),
        (["vgan", "--data", "data", "--units", "1,1"], "--units '1,1' names a unit twice; name each once"),
        (["vgan", "--data", "data", "--out", "file"], "file is a file; --out is a folder for units.json and units.html"),
        (["vgan", "--data", "data", "--share", "1"], "share is 1.0; it must be between 0 and 1"),
        (["vgan", "--data", "data", "--occlusions", "26"], "occlusions is 26; it must be 0, or at least 27"),
        (["vgan", "--data", "data", "--top", "0"], "top is 0; it must be 1 or more"),
        (["vgan", "--data", "data", "--seed", "-1"], "seed is -1; it must be 0 or more"),
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
    assert not list(place.glob("*-units"))


def test_the_fewest_occlusions_are_the_same_number_everywhere() -> None:
    assert cli_units.FEWEST_OCCLUSIONS == units.FEWEST_OCCLUSIONS
