"""generate of a system that diffuses: class, text, steps, size, memory and the figure of its process."""

from pathlib import Path

import numpy as np
import pytest
import torch

from filling import Filling, write_run
from kinema.cli import main
from kinema.data.dataset import Dataset
from kinema.data.media import probe, read_image
from kinema.systems import SYSTEMS
from kinema.training import memory
from kinema.training.checkpoint import save_checkpoint
from small_dataset import write_dataset


@pytest.fixture(autouse=True)
def filling(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The system, and what it was asked."""
    monkeypatch.setitem(SYSTEMS, "filling", Filling)
    monkeypatch.setattr(Filling, "calls", [])
    return Filling.calls


@pytest.fixture
def filler(tmp_path: Path) -> Path:
    return write_run(tmp_path / "filler", reads_text=True)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_classes_and_sentences_take_turns_over_the_seeds(filler: Path, tmp_path: Path, filling: list[dict]) -> None:
    asked = ("--label", "wave", "--label", "bow", "--text", "a person waves", "--seeds", "4-8", "--batch-size", 3)
    assert run("generate", filler, *asked, "--out", tmp_path / "a.npy") == 0
    assert [call["label"].tolist() for call in filling] == [[2, 0, 2], [0, 2]]  # whatever the batch
    assert [call["caption"] for call in filling] == [["a person waves"] * 3, ["a person waves"] * 2]
    assert [call["sampling"] for call in filling] == [None, None]
    clips = np.load(tmp_path / "a.npy").astype(float)
    assert (clips.mean((1, 2, 3, 4)) > 150).tolist() == [True, False, True, False, True]


def test_the_caller_chooses_how_it_samples(filler: Path, tmp_path: Path, filling: list[dict]) -> None:
    asked = ("--sampler", "ddim", "--eta", 0.5, "--guidance", 3, "--label", "wave", "--count", 1)
    assert run("generate", filler, *asked, "--out", tmp_path / "a.npy") == 0
    sampling = filling[0]["sampling"]
    assert (sampling.sampler, sampling.eta, sampling.guidance, sampling.steps) == ("ddim", 0.5, 3, 12)  # 12: its own


@pytest.mark.parametrize(
    ("words", "shape"), [(["--size", "4x24x32"], (4, 24, 32)), (["--frames", "12"], (12, 16, 16)), ([], (8, 16, 16))]
)
def test_clips_of_any_size(
    filler: Path, tmp_path: Path, words: list[str], shape: tuple, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", filler, "--count", 1, *words, "--out", tmp_path / "a.npy") == 0
    assert np.load(tmp_path / "a.npy").shape == (*shape, 3)
    said = capsys.readouterr().out
    size = "x".join(map(str, shape))
    assert f"1 clip of {size} at 12 frames per second" in said
    strange = f"note: filler was trained on clips of 8x16x16 and not of {size}, which may look worse\n"
    assert said.count("note: ") == said.count(strange) == (1 if words else 0)


def test_a_conditional_gan_takes_a_class_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: list[dict]) -> None:
    """A system that makes clips at once and was trained with classes."""
    monkeypatch.setattr(Filling, "needs", frozenset({"video", "label"}))
    for part in ("diffuse", "conditions"):
        monkeypatch.delattr(Filling, part)
    monkeypatch.setattr(
        Filling, "generate", lambda self, seeds, *, label=None: label.reshape(-1, 1, 1, 1, 1).expand(-1, 3, 8, 16, 16) - 1.0
    )
    folder = write_run(tmp_path / "gan")
    assert run("generate", folder, "--label", "walk", "--label", "wave", "--count", 3, "--out", tmp_path / "a.npy") == 0
    assert np.load(tmp_path / "a.npy").mean((1, 2, 3, 4)).tolist() == [128, 255, 128]


@pytest.mark.parametrize("there", [True, False])
def test_the_process_is_drawn(filler: Path, tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data", shape=(8, 16, 16)) if there else None
    folder = write_run(tmp_path / "run", data)
    file = tmp_path / "process.png"
    assert run("generate", folder, "--process", file, "--steps", 20, "--seed", 3) == 0
    said = capsys.readouterr().out
    assert ("above a clip of the run's dataset" if there else "above the sample itself") in said
    assert "below seed 3 in 20 steps of euler" in said
    figure = read_image(file)
    assert figure.shape == (2 * (22 + 128 + 22 + 4) + 4, 8 * 132 + 4, 3)
    assert "seed 3, 20 steps of euler" in probe(file).metadata["comment"]
    assert not (folder / "generated").exists()
    forward, reverse = figure[26:154, 4:132], figure[202:330, 4:132]  # both at the left: the clip
    noise = figure[26:154, -132:-4]
    assert noise.std() > 60
    assert reverse.std() < 20
    assert (forward.std() > 50) == there  # the dataset's clips are noise themselves


def test_the_process_of_a_class_and_of_a_sentence(
    filler: Path, tmp_path: Path, filling: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--label", "wave", "--label", "bow", "--text", "a person waves", "--steps", 4, "--guidance", 3)
    file = tmp_path / "process.png"
    assert run("generate", filler, "--process", file, *asked) == 0
    assert [(call["label"].tolist(), call["caption"]) for call in filling] == [
        ([2], ["a person waves"]),
        ([0], ["a person waves"]),
    ]
    assert {(call["sampling"].steps, call["sampling"].guidance) for call in filling} == {(4, 3)}
    assert "below seed 0, wave, a person waves; seed 1, bow, a person waves in 4 steps" in capsys.readouterr().out
    assert "seed 0, wave, a person waves; seed 1, bow, a person waves, 4 steps of euler" in probe(file).metadata["comment"]
    wave, bow = (read_image(file)[top : top + 128, 4:132].mean() for top in (202, 378))
    assert wave - bow == pytest.approx(0.5 * 127.5, abs=3)  # two classes further
    assert run("generate", filler, "--process", file, "--label", "bow", "--overwrite") == 0
    assert len(filling) == 3


@pytest.mark.parametrize(("words", "seeds"), [(["--seeds", "3,9"], [3, 9]), (["--count", 3], [0, 1, 2]), ([], [0])])
def test_the_process_of_every_seed_is_drawn(
    filler: Path, tmp_path: Path, filling: list[dict], words: list[object], seeds: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "process.png"
    assert run("generate", filler, "--process", file, "--steps", 8, *words) == 0
    assert [call["seeds"] for call in filling] == [[seed] for seed in seeds]
    assert f"below {'; '.join(f'seed {seed}' for seed in seeds)} in 8 steps of euler" in capsys.readouterr().out
    figure = read_image(file)
    assert figure.shape == ((1 + len(seeds)) * 176 + 4, 8 * 132 + 4, 3)
    noises = [figure[176 * row + 26 : 176 * row + 154, -132:-4] for row in range(1, 1 + len(seeds))]
    assert min(noise.std() for noise in noises) > 60
    assert len({noise.tobytes() for noise in noises}) == len(seeds)


@pytest.mark.parametrize("frames", [8, 4])
def test_the_real_clip_of_the_process_is_of_the_class(tmp_path: Path, frames: int) -> None:
    """Of a dataset of clips of eight frames, of which a system may learn from fewer at a time."""
    data = write_dataset(tmp_path / "data", shape=(8, 16, 16), labels=("bow", "walk"))
    folder, file = write_run(tmp_path / "run", data, frames=frames), tmp_path / "process.png"
    shown = {}
    for label, number in (("bow", 0), ("walk", 1)):
        assert run("generate", folder, "--process", file, "--label", label, "--overwrite") == 0
        shown[label] = read_image(file)[26:154:8, 4:132:8]
        np.testing.assert_array_equal(shown[label], Dataset(data).video(number)[frames // 2])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["filler", "--steps", "0"], "steps is 0; it must be 1 or more"),
        (["filler", "--guidance", "-1"], "guidance is -1.0; it must be from 0 to 100"),
        (["filler", "--guidance", "3"], "--guidance exaggerates a class or a sentence, and none is asked for: give --label or"),
        (["filler", "--sampler", "heun", "--eta", "1"], "eta is 1.0; it must be 0 for the sampler heun; ddim alone has it"),
        (["filler", "--eta", "1"], "eta is 1.0; it must be 0 for the sampler euler; ddim alone has it"),
        (["filler", "--label", "wakl"], "filler knows no class 'wakl'; did you mean 'walk'? accepted: bow, walk, wave"),
        (["filler", "--size", "16x48"], "--size '16x48' is no size; write frames x height x width, such as 16x48x32"),
        (["filler", "--size", "8x16x16", "--frames", "4"], "--size already says how many frames; leave out --frames"),
        (["filler", "--frames", "6", "--count", "1"], "a clip of (6, 16, 16) is no multiple of 4x8x8"),
        (
            ["filler", "--process", "a.png", "--out", "b.mp4"],
            "--process draws one picture into the file that it names; leave out --out",
        ),
        (
            ["filler", "--process", "a.png", "--sheet"],
            "--process draws one picture into the file that it names; leave out --sh",
        ),
        (["filler", "--process", "a.jpg"], "a.jpg ends in '.jpg'; the figure is written as .png"),
        (
            ["filler", "--process", "a.png", "--frames", "4"],
            "--process shows sampling at the system's own size; leave out --fr",
        ),
        (["filler", "--process", "a.png", "--label", "wakl"], "filler knows no class 'wakl'; did you mean 'walk'? accepted: "),
        (["filler", "--process", "a.png", "--steps", "0"], "steps is 0; it must be 1 or more"),
        (["deaf", "--process", "a.png", "--text", "a person waves"], "filling of deaf knows no caption; it takes --label"),
        (["deaf", "--text", "a person waves"], "filling of deaf knows no caption; it takes --label"),
        (["vgan", "--steps", "5"], "vgan makes a clip at once and has no --steps; systems that do: "),
        (["vgan", "--size", "8x16x16"], "vgan makes a clip at once and has no --size; systems that do: "),
        (["vgan", "--process", "a.png"], "vgan makes a clip at once and has no --process; systems that do: "),
        (["vgan", "--label", "walk"], "vgan of vgan knows no label; it takes no condition at all"),
        (["vgan", "--streams", "--steps", "5"], "--streams shows the clips of seeds as they are; leave out --steps"),
    ],
)
def test_bad_input_is_one_sentence(
    filler: Path,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "deaf")
    (tmp_path / "vgan").mkdir()
    vgan = SYSTEMS["vgan"]
    save_checkpoint("vgan/checkpoint.safetensors", vgan(vgan.presets["tiny"].config), stage="test")
    assert run("generate", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: {sentence}")
    assert said.count("\n") == 1


def test_clips_beyond_memory_are_refused_naming_the_largest_that_fits(
    filler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], filling: list[dict]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * 2**20)  # 10,485 pixels of Filling
    out = ("--count", 1, "--out", tmp_path / "a.npy")
    assert run("generate", filler, "--frames", 64, *out) == 2
    assert "a clip of 64x16x16 needs 16 MiB of memory and 10 MiB are free; the largest that fits is 40x16x16" in (
        capsys.readouterr().err
    )
    assert run("generate", filler, "--size", "8x128x256", *out) == 2
    assert "the largest that fits is 1x64x128" in capsys.readouterr().err
    assert not filling
    assert run("generate", filler, "--frames", 40, *out) == 0
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    assert run("generate", filler, *out, "--overwrite") == 2
    assert "nothing of its kind fits" in capsys.readouterr().err


def test_fewer_clips_at_once_where_memory_is_short(
    filler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], filling: list[dict]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10 * 2**20)
    assert run("generate", filler, "--count", 12, "--out", tmp_path / "a.npy") == 0
    assert "5 of 12 clips at once: 10 MiB of memory are free" in capsys.readouterr().out
    assert [len(call["seeds"]) for call in filling] == [5, 5, 2]


def test_free_memory_is_asked_of_the_machine() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
