"""kinema detect-fake, as a person types it: footage, training, calibration, answers, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.data.encode import write_video
from kinema.data.media import probe, read_video
from kinema.systems.fake_detector import FakeDetector
from kinema.training.checkpoint import save_checkpoint
from small_dataset import make_video

SIDE, FRAMES = 32, 6
SUBJECTS = ("ada", "ben", "cleo", "dan", "eva", "finn")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def footage(subject: str, take: int, *, fake: bool, frames: int = FRAMES) -> np.ndarray:
    """Somebody's stripe wanders over a smooth wall; in fakes every second column is darker."""
    generator = np.random.default_rng([SUBJECTS.index(subject), take])
    wall = np.kron(generator.integers(60, 160, (4, 4, 3)), np.ones((8, 8, 1), int))
    video = np.repeat(wall[None], frames, axis=0)
    for frame in range(frames):
        video[frame, :, 4 + 2 * frame + take : 7 + 2 * frame + take] = 200
    if fake:
        video[:, :, ::2] -= 50
    return video.clip(0, 255).astype(np.uint8)


Person = tuple[str | None, str, str]
APART: Sequence[Person] = (
    ("ada", "real", "train"),
    ("ben", "fake", "train"),
    ("cleo", "real", "test"),
    ("dan", "fake", "test"),
)


def write_people(
    folder: Path, people: Sequence[Person], *, side: int = 24, labels: tuple[str, ...] = ("fake", "real")
) -> Dataset:
    """Write a clip per (subject, label, split)."""
    clips = []
    for number, (subject, label, split) in enumerate(people):
        about = {"label": label, "group": subject, "split": split}
        record = ClipRecord(f"{number:03d}", f"{number}.mp4", 0, 25.0, **about)  # type: ignore[arg-type]
        clips.append(Clip(record, make_video(number, FRAMES, side, side)))
    write_shard(folder / shard_name(0), clips)
    shape = {"frames": FRAMES, "height": side, "width": side, "fps": 25.0}
    write_info(folder, DatasetInfo(**shape, shards=(shard_name(0),), kept=len(clips), labels=labels))
    return Dataset(folder)


def write_others(folder: Path) -> None:
    """Write datasets with one fault each, and an untrained run of one of them."""
    write_people(folder / "again", APART)
    write_people(folder / "small", APART, side=16)
    write_people(folder / "everybody", [(subject, label, "train") for subject, label, _ in APART])
    write_people(folder / "nobody", [(None, label, split) for _, label, split in APART])
    write_people(folder / "others", [(None, label, "train") for _, label, _ in APART])
    write_people(folder / "words", [(subject, "walk", split) for subject, _, split in APART], labels=("walk",))
    write_people(folder / "real-only", [(subject, "real", split) for subject, _, split in APART], labels=("real",))
    write_people(folder / "leaking", [*APART, ("ada", "real", "test")])
    held_out: list[Person] = [("eva", "fake", "test"), ("cleo", "real", "test"), ("dan", "real", "test")]
    lonely = write_people(folder / "lonely", [*APART[:2], *held_out])
    known = {"fingerprint": lonely.fingerprint, "labels": ["fake", "real"], "split": "train"}
    system = FakeDetector(FakeDetector.presets["tiny"].config)
    (folder / "raw-of-lonely").mkdir()
    save_checkpoint(folder / "raw-of-lonely" / "checkpoint.safetensors", system, stage="detection", dataset=known)


def write_again(folder: Path) -> None:
    """Write a dataset of two clips that the run was trained on, under other names, and two that it never saw."""
    known, clips = Dataset(folder / "data", "train"), []
    for number in range(4):
        seen = number < 2
        video = known.video(number) if seen else make_video(70 + number, FRAMES, 24, 24)
        about = {"label": known.record(number).label if seen else "real", "group": f"g{number}"}
        clips.append(Clip(ClipRecord(f"{number:03d}", f"{number}.mp4", 0, 25.0, **about), np.array(video)))  # type: ignore[arg-type]
    (folder / "train-again").mkdir()
    write_shard(folder / "train-again" / shard_name(0), clips)
    shape = {"frames": FRAMES, "height": 24, "width": 24, "fps": 25.0}
    info = DatasetInfo(**shape, shards=(shard_name(0),), kept=len(clips), labels=("fake", "real"))
    write_info(folder / "train-again", info)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with footage, datasets and a run that was trained for a few steps and evaluated."""
    folder = tmp_path_factory.mktemp("place")
    for kind in ("real", "fake"):
        for subject in SUBJECTS:
            for take in range(3):
                file = folder / "footage" / kind / subject / f"{take}.apng"
                file.parent.mkdir(parents=True, exist_ok=True)
                tags = {"comment": "generated by kinema 0.1: a test"} if kind == "fake" and take == 0 else {}
                write_video(file, footage(subject, take, fake=kind == "fake"), 25.0, metadata=tags)
    words = "--labels parent2 --group folder --split 0.7 --frames 6 --size 24 --stabilise off --duplicates -1 --workers 1"
    assert run("prepare", folder / "footage", *words.split(), "--out", folder / "data") == 0
    words = "--preset tiny --steps 50 --batch-size 12 --learning-rate 0.005 --disturbed 0 --device cpu"
    assert run("train", "fake-detector", folder / "data", "--out", folder / "run", *words.split()) == 0
    shutil.copytree(folder / "run", folder / "raw")
    words = "--preset tiny --steps 1 --split all --device cpu"
    assert run("train", "fake-detector", folder / "data", "--out", folder / "glutton", *words.split()) == 0
    assert run("detect-fake", "evaluate", folder / "run", folder / "data", "--device", "cpu") == 0
    write_others(folder)
    write_video(folder / "short.apng", footage("ada", 0, fake=False, frames=1), 25.0)
    write_again(folder)
    return folder


def test_error_rates_are_measured_on_other_people_than_it_was_calibrated_on(place: Path) -> None:
    report = json.loads((place / "run" / "detection" / "report.json").read_text())
    measured = report["measured"]
    assert measured["videos"]["real"] == measured["videos"]["fake"] == 3 * measured["all subjects"]
    tested = {video["subject"] for video in measured["probabilities"]}
    assert not tested & set(measured["calibrated on"]["subjects"])
    assert 4 <= len(tested | set(measured["calibrated on"]["subjects"])) < len(SUBJECTS)
    assert measured["area under roc"] > 0.9  # it learned the columns
    assert (place / "run" / "detection" / "report.html").exists()


def test_an_answer_comes_with_its_error_rates(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [place / "footage" / kind / "ada" / "0.apng" for kind in ("real", "fake")]
    assert run("detect-fake", place / "run", *files, "--device", "cpu") == 0
    said = capsys.readouterr().out
    real, fake = said.split(str(files[1]))
    assert "real: the probability of fake is " in real
    assert "of 3 windows of 2 frames" in real
    assert "its own metadata" not in real
    assert fake.index("its own metadata say: generated by kinema 0.1: a test") < fake.index("fake: the probability of fake is ")
    assert "32x32 was resized to 24x24" in said
    assert "when measured (data, subjects that it has not seen): false alarms" in said
    assert "95 % interval" in said
    assert "It knows the generator and the footage that it was trained on" in said


def test_real_videos_of_the_camera_decide(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, asked = place / "footage" / "real" / "ben", [place / "footage" / kind / "ada" / "0.apng" for kind in ("real", "fake")]
    words = ("detect-fake", place / "run", *asked, "--device", "cpu", "--real", real)
    assert run(*words, "--false-alarms", "0.25") == 0
    said = capsys.readouterr().out.split(str(asked[1]))
    assert "real: of 3 real videos" in said[0]
    assert "fake: of 3 real videos none looks as synthetic; of a real one this is to be expected in 25.0% of cases" in said[1]
    assert "by the calibration fake: the probability" in said[1]
    assert run(*words, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [Path(video["video"]).name for video in answer["real"]] == ["0.apng", "1.apng", "2.apng"]
    against = answer["videos"][1]["against real"]
    assert (against["verdict"], against["as synthetic"], against["share"]) == ("undecided", 0, 0.25)
    assert "to call it fake with 5.0% false alarms takes 19 real videos or more" in against["sentence"]
    assert answer["videos"][1]["evidence"] > max(video["evidence"] for video in answer["real"])


def test_real_videos_of_another_size_are_no_fair_comparison(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "wide.apng", np.repeat(footage("ben", 1, fake=False), 2, axis=2), 25.0)
    asked = place / "footage" / "real" / "ada" / "0.apng"
    words = ("detect-fake", place / "run", asked, "--device", "cpu", "--real", tmp_path / "wide.apng", place / "short.apng")
    assert run(*words) == 0
    said = capsys.readouterr()
    assert "it is 32x32, and" in said.out
    assert "wide.apng, a real one, 64x32: no fair comparison" in said.out
    assert run(*words, tmp_path, tmp_path / "wide.apng") == 0
    assert "of 1 real video " in capsys.readouterr().out  # however often it is named
    assert "short.apng has at most 1 frame" in said.err


def test_json_holds_every_window(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "footage" / "fake" / "ada" / "0.apng"
    assert run("detect-fake", place / "run", file, "--json", "--device", "cpu") == 0
    answer = json.loads(capsys.readouterr().out)
    (video,) = answer["videos"]
    assert video["says"] == "generated by kinema 0.1: a test"
    assert [window["frame"] for window in video["windows"]] == [0, 2, 4]
    assert [window["seconds"] for window in video["windows"]] == [0, 0.08, 0.16]
    assert 0.5 < video["probability"] < 1
    assert answer["measured"]["false alarms"]["total"] > 0


def test_classes_other_than_real_and_fake_are_refused_in_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not with an option that the system does not have, such as --classes 1."""
    assert run("train", "fake-detector", place / "words", "--out", tmp_path / "run", "--preset", "tiny") == 2
    assert "words has the classes walk, and fake-detector learns fake and real; prepare" in capsys.readouterr().err


def test_a_bad_video_is_named_and_the_others_are_answered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = place / "footage" / "fake" / "ada" / "0.apng"
    assert run("detect-fake", place / "run", place / "gone.mp4", good, place / "short.apng", "--json", "--device", "cpu") == 1
    said = capsys.readouterr()
    assert [video["video"] for video in json.loads(said.out)["videos"]] == [str(good)]
    assert "gone.mp4" in said.err
    assert "short.apng has at most 1 frame" in said.err
    assert run("detect-fake", place / "run", place / "gone.mp4", place / "short.apng", "--device", "cpu") == 2
    assert capsys.readouterr().out == ""


def test_windows_do_not_reach_over_a_cut(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark, bright = footage("ada", 0, fake=False, frames=3) // 8, 255 - footage("ben", 0, fake=False, frames=5) // 8
    write_video(tmp_path / "cut.apng", np.concatenate([dark, bright]), 25.0)
    assert run("detect-fake", place / "run", tmp_path / "cut.apng", "--json", "--device", "cpu") == 0
    (video,) = json.loads(capsys.readouterr().out)["videos"]
    assert [window["frame"] for window in video["windows"]] == [0, 3, 5]


def test_another_shape_and_rate_are_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = np.repeat(footage("ben", 1, fake=False), 2, axis=2)
    write_video(tmp_path / "wide.apng", wide, 50.0)
    assert run("detect-fake", place / "run", tmp_path / "wide.apng", "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "64x32 was resized and cropped to 24x24" in said
    assert "it has 50 frames per second, and the detector was trained at 25" in said


def test_it_is_measured_on_others_as_it_is(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (place / "run" / "checkpoint.safetensors").read_bytes()
    others = ("detect-fake", "evaluate", place / "run", place / "others", "--as-is", "--device", "cpu")
    assert run(*others, "--out", tmp_path / "others") == 0
    assert "of others, another dataset than it was trained on" in capsys.readouterr().out
    assert (place / "run" / "checkpoint.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "others" / "report.json").read_text())["measured"]["videos"] == {"real": 2, "fake": 2}
    assert run("detect-fake", "evaluate", place / "run", place / "real-only", "--as-is", "--out", tmp_path / "real") == 0
    assert json.loads((tmp_path / "real" / "report.json").read_text())["measured"]["misses"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run",), "detect-fake wants a run and videos, and no video is named"),
        (("nowhere", "short.apng"), "nowhere does not exist; give a run directory"),
        (("run", "nowhere.mp4"), "nowhere.mp4 does not exist; give a video or an image"),
        (
            ("run", "short.apng"),
            "short.apng has at most 1 frame without a cut, and run looks at 2 that follow each other; give a",
        ),
        (
            ("raw", "short.apng"),
            "raw is not calibrated, so that its evidence is no probability; first: kinema detect-fake evaluate raw",
        ),
        (
            ("zoo:vgan-performers", "short.apng"),
            "vgan-performers.safetensors holds the system 'vgan'; 'fake-detector' was asked for",
        ),
        (
            ("run", "footage/real/ada/0.apng", "--real", "footage/real/ada"),
            "footage/real/ada/0.apng is asked about, and --real says that it is real; leave it out of one of them",
        ),
        (("run", "footage/real/ada/0.apng", "--real", "footage"), "footage holds no images or clips; folders in it"),
        (("run", "footage/real/ada/0.apng", "--false-alarms", "1"), "false_alarms is 1.0; it must be between 0 and 1"),
        (
            ("run", "footage/real/ada/0.apng", "--real", "short.apng"),
            "short.apng has at most 1 frame without a cut",
        ),
        (
            ("evaluate", "raw", "everybody"),
            "everybody holds nobody out, so that nothing can be measured; prepare it with --split",
        ),
        (("evaluate", "raw", "nobody"), "has no subject; prepare the footage with --group, and --split 0.4"),
        (
            ("evaluate", "raw", "words"),
            "words has the labels walk; videos to measure a detector on are",
        ),
        (
            ("evaluate", "raw", "real-only"),
            "real-only has the labels real; videos to measure a detector on are labelled real and fake",
        ),
        (("evaluate", "raw", "leaking"), "the subject 'ada' of leaking is in both splits"),
        (
            ("evaluate", "raw-of-lonely", "lonely"),
            "the held-out videos of lonely that are fake are of 'eva' alone; at least two subjects are",
        ),
        (
            ("evaluate", "raw", "small"),
            "small has clips of 6x16x16 and raw looks at windows of 2x24x24 (frames x height x width)",
        ),
        (("evaluate", "glutton", "data"), "glutton was trained on the split 'all' of data, people who are held out among them"),
        (
            ("evaluate", "run", "again", "--out", "x"),
            "and not on again, so that nobody knows whom of it was seen; give the dataset",
        ),
        (("evaluate", "raw", "others", "--as-is"), "raw is not calibrated; first: kinema detect-fake evaluate raw DATA"),
        (("evaluate", "run", "data", "--as-is", "--out", "x"), "run was trained on data; --as-is measures it on other videos"),
        (
            ("evaluate", "run", "data"),
            "run is calibrated already, and its rates are measured; --overwrite does it anew, --as-is",
        ),
        (("evaluate", "run", "data", "--out", "x"), "run is calibrated already, and its rates are measured"),
        (
            ("evaluate", "run", "others", "--as-is", "--out", "run/detection"),
            "report.json exists; give another --out, or --over",
        ),
        (("evaluate", "run", "others", "--as-is", "--seed", "3"), "--as-is measures everybody, and --seed divides them"),
        (("evaluate", "run", "train-again", "--as-is"), "2 of 4 videos of train-again are among those that run was trained on"),
        (
            ("run", "footage/real/ada/0.apng", "--false-alarms", "0.2"),
            "--false-alarms is decided by real videos; give them with",
        ),
        (
            ("run", "footage/real/ada/0.apng", "--real", "footage/fake/ben"),
            "0.apng is given as real, and its own metadata say: generated by kinema 0.1: a test; leave it out",
        ),
        (("evaluate", "raw", "data", "--seed", "-1"), "seed is -1; it must be 0 or more"),
        (
            ("evaluate", "raw", "data", "--out", "short.apng"),
            "short.apng is a file; --out is a folder for report.json and report.html",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run("detect-fake", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("kinema: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_real_clips_are_written_as_generated_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two subjects with five clips each, and footage without a group, which is a subject of its own."""
    people = [*[("ada", None, "train")] * 5, *[("ben", None, "train")] * 5, (None, None, "train")]
    data = write_people(tmp_path / "data", people, labels=())  # type: ignore[arg-type]
    words = ("detect-fake", "real", tmp_path / "data", "--out", tmp_path / "real", "--count", 2)
    assert run(*words) == 0
    assert "5 clips of 3 subjects" in capsys.readouterr().out
    files = sorted(path.relative_to(tmp_path / "real").as_posix() for path in (tmp_path / "real").glob("*/*"))
    assert files == ["10/010.mp4", "ada/000.mp4", "ada/004.mp4", "ben/005.mp4", "ben/009.mp4"]
    info = probe(tmp_path / "real" / "ben" / "009.mp4")
    assert (info.width, info.height, info.frames, float(info.fps or 0)) == (24, 24, FRAMES, 25.0)
    assert not any("kinema" in text for text in info.metadata.values())
    write_video(tmp_path / "same.mp4", data.video(9), 25.0, metadata={"comment": "generated"})  # as kinema generate does
    np.testing.assert_array_equal(*(read_video(tmp_path / name)[0] for name in ("real/ben/009.mp4", "same.mp4")))
    assert run(*words) == 2
    assert "000.mp4 exists; give another --out, or --overwrite" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 0
    assert run(*words[:-1], 0) == 2
