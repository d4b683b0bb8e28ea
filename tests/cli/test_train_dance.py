"""``kinema train dance``: stages, budgets, sheets of held-out clips, and data of another layout."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.core.errors import TrainingError
from kinema.data.dataset import Dataset, write_info
from kinema.systems.dance import Dance
from kinema.training import load
from kinema.training.checkpoint import read_metadata
from kinema.training.misfit import refuse_misfit
from small_dataset import write_dataset


def test_all_stages_are_played_and_transfers_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(6, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "8", "--batch-size", "2", "--log-steps", "1"]
    assert main(["train", "dance", str(data), "--out", str(run), *options, "--style.radius", "12"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reached = {line["stage"]: line["step"] for line in lines if "stage" in line}
    assert reached == {"statistics": 0, "global": 1, "local": 7, "face": 8}  # 5, 30 and 5 of 40
    assert list((run / "samples").glob("*-transfers.png"))
    few = "48 frames of the target: several hundred are wanted, for poses that were not seen come out like the nearest one"
    assert f"length of the target: {few}" in capsys.readouterr().err
    assert few in (run / "index.html").read_text()
    system = load(run)
    assert isinstance(system, Dance)
    assert system.style.radius == 12
    assert system.target_statistics().frames == 8 * 6  # whole clips of the training split, not their windows
    assert bool(system.enhanced)
    assert bool(system.corrected)


def test_a_run_remembers_what_found_the_poses_of_its_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(6, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "3", "--batch-size", "2", "--overwrite"]
    found = {"name": "dots.onnx", "version": "ab" * 32}
    for settings in ({"pose": "models/dots.onnx", "pose_version": found["version"]}, {"kind": "performers"}):
        write_info(data, replace(Dataset(data).info, settings=settings))
        assert main(["train", "dance", str(data), "--out", str(run), *options]) == 0
        expected = found if "pose" in settings else None
        assert read_metadata(run / "checkpoint.safetensors").dataset.get("pose_detector") == expected
        assert json.loads((run / "config.json").read_text())["dataset"].get("pose_detector") == expected
        capsys.readouterr()
        assert main(["info", str(run)]) == 0
        assert ("pose_detector name dots.onnx, version abab" in capsys.readouterr().out) == (expected is not None)


def test_poses_of_another_layout_are_refused(tmp_path: Path) -> None:
    dataset = Dataset(write_dataset(tmp_path / "data", shape=(4, 32, 32), people=True))
    system = Dance(replace(Dance.presets["tiny"].config, skeleton="body-25"))
    with pytest.raises(TrainingError, match="are of the skeleton coco-18 and dance is set to body-25; give --skeleton coco-18"):
        refuse_misfit(dataset, system)
    plain = Dataset(write_dataset(tmp_path / "plain", shape=(4, 32, 32)))
    with pytest.raises(TrainingError, match="come without pose: prepare them with --pose mediapipe"):
        refuse_misfit(plain, system)


def test_where_no_face_is_ever_visible_its_stage_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(6, 32, 32), people=True, faceless=True), tmp_path / "run"
    options = ["--preset", "tiny", "--batch-size", "2", "--log-steps", "1"]
    assert main(["train", "dance", str(data), "--out", str(run), *options, "--steps", "7"]) == 0
    said = capsys.readouterr().err
    reason = "A face (two of nose, eyes and ears) is visible in 0 of 48 frames, and --face-share asks for 5% of them."
    assert f"face: skipped. {reason}" in said
    assert f"make clips with: kinema transfer --source VIDEO --target {run} --out FILE" in said
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"]: line["step"] for line in lines if "stage" in line} == {"statistics": 0, "global": 1, "local": 7}
    assert reason in (run / "index.html").read_text()
    trained = load(run)
    assert isinstance(trained, Dance)
    assert not bool(trained.corrected)
    again = ["train", "dance", str(data), "--out", str(run), "--resume", "--steps"]
    assert main([*again, "7"]) == 2
    assert "there is nothing to resume" in capsys.readouterr().err
    assert main([*again, "14"]) == 0  # 12 of the steps are for "local", of which 6 are done; none for "face"
    assert "done already: global; a larger budget lengthens what is left alone" in capsys.readouterr().err
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["step"], last["end"]) == ("local", 13, "finished")


def test_without_the_file_of_vgg19_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(4, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--perceptual-network", "vgg19", "--perceptual-weight", "10"]
    assert main(["train", "dance", str(data), "--out", str(run), *options]) == 2
    assert "perceptual_weights is not given; it is torchvision's file https://" in capsys.readouterr().err
    wrong = tmp_path / "vgg19.pth"
    wrong.write_bytes(b"something else")
    options += ["--perceptual-weights", str(wrong), "--perceptual-digest", "dcbb9e9d"]
    assert main(["train", "dance", str(data), "--out", str(run), *options]) == 2
    said = capsys.readouterr().err
    assert "has the SHA-256" in said
    assert "does not begin with 'dcbb9e9d'" in said
    assert not run.exists()


def test_mirrored_clips_are_refused_where_one_background_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(4, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "3", "--batch-size", "2", "--flip"]
    for more in ([], ["--dry-run"]):
        assert main(["train", "dance", str(data), "--out", str(run), *options, *more]) == 2
        assert "dance learns one still background, which mirrored clips contradict; leave out --flip" in capsys.readouterr().err
    assert not run.exists()
    assert main(["train", "dance", str(data), "--out", str(run), *options, "--no-background"]) == 0


def test_generator_and_face_alternate(tmp_path: Path) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(6, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "15", "--batch-size", "2", "--log-steps", "1", "--alternate", "1"]
    assert main(["train", "dance", str(data), "--out", str(run), *options]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reached = {line["stage"]: line["step"] for line in lines if "stage" in line}
    assert reached == {"statistics": 0, "global": 1, "local": 7, "face": 8, "local-2": 14, "face-2": 15}
