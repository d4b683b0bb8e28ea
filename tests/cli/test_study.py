"""kinema study, as a person types it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kinema.evaluation.study
from kinema.cli import main
from kinema.data.encode import write_video
from kinema.evaluation.study.design import order_for
from kinema.evaluation.study.folder import Study, read_study
from kinema.evaluation.study.store import Store, Vote, now
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import write_dataset

SHAPE = (8, 16, 16)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a dataset and a folder of clips that fit each other."""
    folder = tmp_path_factory.mktemp("sources")
    system_class = SYSTEMS["vgan"]
    torch.manual_seed(0)
    system = system_class(system_class.presets["tiny"].config)
    (folder / "run").mkdir()
    save_checkpoint(
        folder / "run" / "checkpoint.safetensors", system, stage="t", dataset={"fps": 25.0}, provenance=provenance()
    )
    write_dataset(folder / "data", shape=SHAPE)
    for name in ("clips", "slow", "short"):
        (folder / name).mkdir()
        for number in range(3):
            video = np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
            write_video(folder / name / f"{number}.mp4", video[:4] if name == "short" else video, 8 if name == "slow" else 25)
    (folder / "empty").mkdir()
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def create(sources: Path, out: Path, *words: object) -> int:
    named = (f"vgan={sources / 'run'}", f"real={sources / 'data'}", f"mine={sources / 'clips'}")
    return run("study", "create", *named, "--out", out, "--trials", 6, "--clips", 3, "--catch", 2, "--repeats", 1, *words)


def answer(folder: Path, study: Study, rater: int, favourites: tuple[str, ...]) -> None:
    """Answer everything with the system that stands earliest in `favourites`."""
    store = Store(folder, study, create=True)
    number, _ = store.add_rater(consented=True)
    for position, (trial, clips) in enumerate(order_for(study, rater)):
        shown = [study.clips[index] for index in clips]
        # A moving clip over its first frame, and else by system.
        order = sorted(range(len(shown)), key=lambda place: (favourites.index(shown[place].system), shown[place].still))
        files = tuple(clip.file for clip in shown)
        store.add_vote(Vote(number, trial.id, position, files, tuple(order), 1500, now()))
    store.close()


def test_from_sources_to_results(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(sources, tmp_path / "study") == 0
    study = read_study(tmp_path / "study")
    assert study.systems == ("vgan", "real", "mine")
    assert len(order_for(study, 1)) == 2 + 6 + 2 + 1
    assert "split test" in study.origins["real"]
    for rater, favourites in enumerate([("real", "vgan", "mine", "noise")] * 2 + [("noise", "vgan", "mine", "real")], start=1):
        answer(tmp_path / "study", study, rater, favourites)
    capsys.readouterr()
    assert run("study", "results", tmp_path / "study", "--csv", tmp_path / "answers.csv") == 0
    said = capsys.readouterr().out
    assert re.search(r"vgan over real +33 +10-70 +0\.69 +6\n", said)
    assert re.search(r"vgan over mine +100 +61-100 +0\.031 +6\n", said)
    assert "Excluded: 1 of 3 raters" in said
    assert "rater 3: put noise last in 0%" in said
    assert re.search(r"Without excluded raters\n2 raters, 12 answers of comparisons", said)
    assert re.search(r"vgan over real +0 +0-49 +0\.12 +4\n", said)
    assert "Krippendorff's alpha 1.00, 100% of answers alike" in said
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 3 * 11


def test_a_ranking_from_sources_to_results(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--kind", "ranking", "--still", 3, "--pool", 8)
    assert create(sources, tmp_path / "study", *words) == 0
    assert "14 trials for every rater" in capsys.readouterr().out  # 2 for practice, 6, 2 with noise, 1 again, 3 still
    study = read_study(tmp_path / "study")
    assert (study.kind, study.title, study.question[:5]) == ("ranking", "Videos in order", "Order")
    orders = [("real", "vgan", "mine", "noise")] * 2 + [("real", "mine", "vgan", "noise"), ("noise", "mine", "vgan", "real")]
    for rater, favourites in enumerate(orders, start=1):
        answer(tmp_path / "study", study, rater, favourites)
    assert run("study", "results", tmp_path / "study", "--csv", tmp_path / "answers.csv") == 0
    everybody, careful = capsys.readouterr().out.split("Without excluded raters\n")
    # Ranks of real: three raters 1, one rater 3, six answers each.
    assert re.search(
        r"average rank ± SD, 1 is best\nreal +1\.50 ± 0\.88\nvgan +2\.25 ± 0\.44\nmine +2\.25 ± 0\.85\n", spaceless(everybody)
    )
    assert "Friedman's test over 4 raters: chi-square 1.50 with 2 degrees of freedom, p 0.47" in everybody
    assert re.search(r"vgan over real +25 +", everybody)
    assert "rater 4: put noise last in 0%" in everybody
    assert "Bradley" not in everybody
    assert "3 raters, 18 answers of comparisons" in careful
    assert re.search(r"real +1\.00 ± 0\.00\nvgan +2\.33 ± 0\.49\nmine +2\.67 ± 0\.49\n", careful)
    assert "Friedman's test over 3 raters: chi-square 4.67 with 2 degrees of freedom, p 0.097" in careful
    assert re.search(r"vgan over mine +67 +", careful)
    assert re.search(r"first frame over moving clip, percent +all +95 % +p +answers\n(\w+ +0 +0-56 +0\.25 +3\n?){3}", careful)
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 4 * 14


def spaceless(text: str) -> str:
    return re.sub(r" +\n", "\n", text)


def test_the_same_command_makes_the_same_study(sources: Path, tmp_path: Path) -> None:
    assert create(sources, tmp_path / "a") == create(sources, tmp_path / "b") == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_texts_and_frames(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "consent.txt").write_text("You may stop.\n")
    words = ("--question", "Which is sharper?", "--consent", tmp_path / "consent.txt", "--frames", 4)
    assert create(sources, tmp_path / "study", *words) == 0
    study = read_study(tmp_path / "study")
    assert (study.question, study.consent, study.frames) == ("Which is sharper?", "You may stop.", 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a=zoo:vgan-performers"], "at least two systems"),
        (["a={0}/clips", "b={0}/empty"], "holds no checkpoint, no dataset and no clips"),
        (["a={0}/clips", "b={0}/nothing"], "nothing does not exist; give a run"),
        (["a={0}/clips", "b={0}/slow"], "frames per second"),
        (["a={0}/clips", "b={0}/short"], "--frames"),
        (["a={0}/clips", "b={0}/short", "--frames", "6"], "a clip of 4 frames"),
        (["{0}/clips", "{0}/run"], "NAME=SOURCE"),
        (["a={0}/clips", "b={0}/clips", "--trials", "0"], "trials is 0"),
        (["a={0}/clips", "b={0}/clips", "--trials", "2", "--repeats", "3"], "repeats is 3"),
        (["a={0}/clips", "b={0}/clips", "--kind", "ranking"], "a ranking is of 3 to 8 systems, not 2"),
        (["a={0}/clips", "b={0}/clips", "--kind", "order"], "invalid choice"),
        (["a={0}/clips", "b={0}/clips", "--pool", "39"], "pool is 39; it must be at least the number of trials, 40"),
        (["a={0}/clips", "b={0}/data", "--matched"], "matched clips need as many of every system"),
        (["a={0}/clips", "b={0}/data", "--matched", "--clips", "2"], "of b others were drawn than of a"),
        (["a={0}/clips", "b={0}/data", "c={0}/clips"], "'a' and 'c' have the very same clips, so that nobody can"),
        (["a={0}/run", "b={0}/run/checkpoint.safetensors"], "'a' and 'b' have the very same clips"),
    ],
)
def test_bad_sources_are_one_sentence(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    if words[0].startswith("a=zoo:"):
        words = [f"a={sources / 'clips'}"]
    assert run("study", "create", *(word.format(sources) for word in words), "--out", tmp_path / "study") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_bad_studies_are_one_sentence(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(said: str, *words: object) -> None:
        assert run("study", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1

    refused("no verb 'serv'; did you mean 'serve'?", "serv")
    refused("kinema study create", "results", tmp_path)
    assert create(sources, tmp_path / "study") == 0
    refused("never overwritten", "create", "a=x", "b=y", "--out", tmp_path / "study")
    refused("nobody has answered yet", "results", tmp_path / "study")
    study = read_study(tmp_path / "study")
    Store(tmp_path / "study", study, create=True).close()
    refused("nobody has answered a trial that counts", "results", tmp_path / "study")
    answer(tmp_path / "study", study, 1, ("real", "vgan", "mine", "noise"))
    text = (tmp_path / "study" / "study.json").read_text()
    (tmp_path / "study" / "study.json").write_text(text.replace(study.question, "Which?"))
    refused("changed after the first answer", "results", tmp_path / "study")
    refused("--open lets in everybody", "serve", tmp_path / "study", "--open", "--invite", 2)


def test_a_taken_port_and_a_missing_package_are_one_sentence(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert create(sources, tmp_path / "study") == 0
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "kinema.evaluation.study.server", raising=False)
        patched.delattr(kinema.evaluation.study, "server", raising=False)
        patched.setitem(sys.modules, "uvicorn", None)
        assert run("study", "serve", tmp_path / "study") == 2
    assert "pip install 'kinema[study]'" in capsys.readouterr().err
    server = pytest.importorskip("kinema.evaluation.study.server", reason="pip install 'kinema[study]'")
    with server.listen("127.0.0.1", 0) as taken:
        assert run("study", "serve", tmp_path / "study", "--port", taken.getsockname()[1]) == 2
    assert "choose another --port" in capsys.readouterr().err
