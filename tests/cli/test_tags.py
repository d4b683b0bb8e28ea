"""Every writer marks what a model made, alone or beside real clips, and nothing that is real; read as `kinema info` does."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from forked_dataset import write_forked_dataset
from kinema.cli import compare, demo, main
from kinema.cli.catalogue import describe
from kinema.cli.output import Output
from kinema.data.dataset import Dataset
from kinema.data.encode import write_video
from kinema.data.overlay import Overlay, write_overlay
from kinema.data.sources import find_sources
from kinema.data.tags import generated_tags, read_tags, signature
from kinema.evaluation.page import moving
from kinema.pose.files import write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from kinema.training.runlog import RunLog
from kinema.training.sheets import write_sheets
from small_dataset import make_video, write_dataset

Write = Callable[[Path, Path], Path]
"""Place with runs and data, and an empty folder -> the file that was written."""
CLIP = make_video(0, 8, 16, 16)
VIDEO = torch.zeros(2, 3, 8, 16, 16)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained runs, forked performers, and noise to judge against."""
    folder = tmp_path_factory.mktemp("place")
    for name, stage, fps in (
        ("pose-knows", "video", 8.0),
        ("vgan", "gan", 25.0),
        ("ddpm", "diffusion", 25.0),
        ("vgan-future", "gan", 25.0),
    ):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS[name](SYSTEMS[name].presets["tiny"].config)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, system, stage=stage, dataset={"fps": fps}, provenance=provenance())
    write_forked_dataset(folder / "forked")
    write_dataset(folder / "data", 100, per_shard=50, shape=(8, 16, 16))
    return folder


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def output(suffix: str) -> Write:
    def write(place: Path, folder: Path) -> Path:
        file = folder / f"a{suffix}"
        made = Output(file, ["a"], suffix=suffix, sheet=False, fps=8.0, about="a test", overwrite=False)
        made.add([CLIP])
        return made.close()

    return write


def sheet(name: str) -> Write:
    def write(place: Path, folder: Path) -> Path:
        write_sheets(RunLog(folder, 1, 1), 7, VIDEO, {"predictions": {"real": VIDEO, "predicted": VIDEO}}, 8.0)
        return folder / "samples" / name

    return write


def figure(place: Path, folder: Path) -> Path:
    run("generate", place / "ddpm", "--count", 1, "--steps", 2, "--process", folder / "a.png")
    return folder / "a.png"


def forecast(place: Path, folder: Path) -> Path:
    run(
        "predict", place / "pose-knows", place / "forked", "--count", 1, "--futures", 4, "--modes", 2, "--out", folder / "a.mp4"
    )
    return folder / "a.poses.npz"


def of_page(made: str | None) -> Write:
    def write(place: Path, folder: Path) -> Path:
        return unpacked(moving([CLIP], 1, 8.0, made=made), folder)

    return write


def of_comparison(made: str | None) -> Write:
    def write(place: Path, folder: Path) -> Path:
        compare._write_clips(folder / "a.webp", [CLIP], 8.0, made)
        return folder / "a.webp"

    return write


def drawn(suffix: str, below: str | None = None, *, overlay: bool = False) -> Write:
    """Draw poses on nothing, or on a film that is "real" or "made"."""

    def write(place: Path, folder: Path) -> Path:
        points = np.random.default_rng(0).uniform(2, 14, (8, 1, 18, 3)).astype(np.float32)
        write_poses(folder / "a.npz", Poses(points, COCO_18, 16, 16, 8.0))
        film, out = folder / "film.mp4", folder / f"drawn{suffix}"
        write_video(film, CLIP, 8.0, metadata=generated_tags("a test") if below == "made" else None)
        if overlay:
            write_overlay(Overlay(find_sources([film]).sources[0], folder / "a.npz", out))
        else:
            run("pose", "draw", folder / "a.npz", "--out", out, *(("--over", film) if below else ()))
        return out if suffix else out / "000000.png"

    return write


def of_demo(place: Path, folder: Path) -> Path:
    return demo.write_clips(Dataset(place / "data"), [0], folder / "real", ".webp")[0]


def real_example(place: Path, folder: Path) -> Path:
    run("detect-fake", "real", place / "data", "--count", 1, "--out", folder)
    return next(folder.rglob("*.mp4"))


def unpacked(uri: str, folder: Path, name: str = "a") -> Path:
    file = folder / f"{name}.webp"
    file.write_bytes(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))
    return file


@pytest.mark.parametrize(
    "write",
    [
        *(pytest.param(output(suffix), id=f"output{suffix}") for suffix in (".mp4", ".webm", ".gif", ".webp", ".apng", ".png")),
        pytest.param(output(".npy"), id="output.npy"),
        *(
            pytest.param(sheet(name), id=name)
            for name in ("000007.png", "000007.mp4", "000007-predictions.png", "000007-predictions.mp4")
        ),
        pytest.param(figure, id="process"),
        pytest.param(forecast, id="poses.npz"),
        pytest.param(of_page("a test"), id="page"),
        pytest.param(of_comparison("a test"), id="compare"),
        pytest.param(drawn(".mp4", "made"), id="drawn-over-made"),
        pytest.param(drawn(".mp4", "made", overlay=True), id="overlay-of-made"),
    ],
)
def test_what_a_model_made_says_so(place: Path, tmp_path: Path, write: Write) -> None:
    file = write(place, tmp_path)
    assert (signature(read_tags(file)) or "").startswith("generated by kinema ")
    facts = describe(str(file))
    assert facts["generated"]["synthetic"] is True
    assert facts["generated"]["generator"].startswith("kinema ")
    assert facts["tags"]["comment"].endswith(facts["generated"]["about"])


@pytest.mark.parametrize(
    ("write", "by_rules"),
    [
        pytest.param(of_page(None), False, id="page"),
        pytest.param(of_comparison(None), False, id="compare"),
        pytest.param(real_example, False, id="detect-fake-real"),
        pytest.param(of_demo, True, id="demo"),
        pytest.param(drawn(".mp4"), True, id="drawn"),
        pytest.param(drawn(""), True, id="drawn-folder"),
        pytest.param(drawn(".mp4", "real"), True, id="drawn-over-real"),
        pytest.param(drawn(".mp4", "real", overlay=True), True, id="overlay-of-real"),
    ],
)
def test_what_is_real_or_drawn_by_rules_is_not_called_generated(
    place: Path, tmp_path: Path, write: Write, by_rules: bool
) -> None:
    file = write(place, tmp_path)
    assert signature(read_tags(file)) is None
    facts = describe(str(file))
    assert "generated" not in facts
    assert facts.get("drawn", {}).get("synthetic") == (False if by_rules else None)


def test_a_report_marks_judged_clips_of_a_run_and_of_its_files_and_no_real_ones(place: Path, tmp_path: Path) -> None:
    """A page has the judged clips, real ones, and pairs of both."""
    run("generate", place / "vgan", "--count", 33, "--out", tmp_path / "files")
    run("generate", place / "vgan", "--count", 33, "--out", tmp_path / "clips.npy")
    write_dataset(tmp_path / "noise", 40, per_shard=40, shape=(8, 16, 16), test_every=1)
    for judged, made in (
        (place / "vgan", True),
        (tmp_path / "files", True),
        (tmp_path / "clips.npy", True),
        (tmp_path / "noise", False),
    ):
        out = tmp_path / f"report of {judged.name}"
        words = ("--against", place / "data", "--features", "small_features:Colours", "--count", 32, "--out", out)
        run("evaluate", judged, *words)
        pictures = re.findall(r'<img src="(data:image/webp[^"]+)" alt="([^"]+)"', (out / "report.html").read_text())
        marked = {alt: signature(read_tags(unpacked(uri, tmp_path))) is not None for uri, alt in pictures}
        assert marked == {"real clips": False, "judged clips": made, "a judged clip and the nearest training clip": made}, (
            judged
        )


def test_predictions_beside_the_truth_are_marked_and_pairs_of_real_clips_are_not(place: Path, tmp_path: Path) -> None:
    for judged, made in ((place / "vgan-future", True), (place / "data", False)):
        out = tmp_path / judged.name
        run("evaluate", judged, "--against", place / "data", "--paired", "--perceptual", "none", "--count", 9, "--out", out)
        pictures = re.findall(r'<img src="(data:image/webp[^"]+)"', (out / "report.html").read_text())
        assert {signature(read_tags(unpacked(uri, tmp_path))) is not None for uri in pictures} == {made}


def test_tags_that_are_damaged_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CLIP)
    assert read_tags(tmp_path / "a.npy") == {}
    (tmp_path / "a.npy.json").write_text("{")
    assert main(["info", str(tmp_path / "a.npy")]) == 2
