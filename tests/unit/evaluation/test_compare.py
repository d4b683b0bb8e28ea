"""The plan of a comparison: who takes part, in which order, with which budget, and whose folder it is."""

import dataclasses
from pathlib import Path

import pytest

from kinema.core.errors import ConfigError, EvaluationError, KinemaError, TrainingError
from kinema.evaluation.compare import PLAN_NAME, Contest, Part, claimed, read_contest, read_contestants
from unit.evaluation.small_contest import ONE, TWO, contest

SYSTEMS = ["vgan", "vgan-autoencoder", "vgan-future"]


def test_contestants_are_systems_with_variants_presets_and_options() -> None:
    found = read_contestants(
        "vgan:two-stream, vgan:one-stream@small-data,autoencoder-mixture", ["wide='vgan' --width 48"], SYSTEMS
    )
    assert [(one.name, one.words) for one in found] == [
        ("vgan:two-stream", ("vgan", "--generator-streams", "two")),
        ("vgan:one-stream@small-data", ("vgan", "--generator-streams", "one", "--preset", "small-data")),
        ("autoencoder-mixture", ("vgan-autoencoder",)),
        ("wide", ("vgan", "--width", "48")),
    ]
    assert [one.folder for one in found] == ["vgan-two-stream", "vgan-one-stream-small-data", "autoencoder-mixture", "wide"]


@pytest.mark.parametrize(
    ("systems", "named", "sentence"),
    [
        ("", [], "compare wants contestants"),
        ("vgn", [], "there is no system 'vgn'; did you mean 'vgan'?"),
        ("vgan:two-streams", [], "vgan has no variant 'two-streams'; did you mean 'two-stream'?"),
        ("vgan-future:two", [], "vgan-future has no variant 'two'; accepted: none"),
        ("vgan:two:three", [], "'vgan:two:three' is no SYSTEM"),
        ("vgan,vgan", [], "2 contestants are called vgan; give them names"),
        ("vgan", ["Vgan=vgan --width 8"], "2 contestants are called vgan; give them names"),
        ("", ["a:b=vgan", "a-b=vgan"], "2 contestants are called a-b; give them names"),
        ("", ["study=vgan"], "a contestant cannot be called study"),
        ("", ["wide"], "--contestant 'wide' is no NAME='SYSTEM OPTION...'"),
        ("", ["wide='vgan"], '--contestant "wide=\'vgan" cannot be read: No closing quotation'),
        ("", ["a=vgan --minutes 9"], "--contestant 'a=vgan --minutes 9' has --minutes, which is the same for every"),
        ("", ["a=vgan --seed=1"], "--contestant 'a=vgan --seed=1' has --seed=1, which is the same for every"),
    ],
)
def test_contestants_that_do_not_exist_are_refused(systems: str, named: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_contestants(systems, named, SYSTEMS)
    assert str(refused.value).startswith(sentence)


def test_everybody_has_the_first_seed_before_anybody_has_the_second() -> None:
    assert [(part.contestant.name, part.seed, part.point) for part in contest().parts()] == [
        ("one", 0, 1), ("one", 0, 2), ("two", 0, 1), ("one", 1, 1), ("one", 1, 2), ("two", 1, 1),
    ]  # fmt: skip


def test_a_budget_is_given_in_equal_slices() -> None:
    plan = contest()
    assert [plan.budget(Part(ONE, 0, point)) for point in (1, 2)] == [("minutes", 1.5), ("minutes", 3.0)]
    assert plan.budget(Part(TWO, 0, 1)) == ("minutes", 3.0)
    seen = contest(minutes=None, clips_seen=101)  # whole batches of 4 and of 8, never more than were asked for
    assert [seen.budget(Part(ONE, 0, point)) for point in (1, 2)] == [("steps", 12), ("steps", 25)]
    assert seen.budget(Part(TWO, 0, 1)) == ("steps", 12)


def test_the_command_is_one_of_kinema_train() -> None:
    command = contest().command(Part(ONE, 1, 1), Path("out"), resume=True)
    assert command == [
        "train", "vgan", "data/mine", "--out", "out/one/seed-1/run", "--preset", "tiny", "--seed", "1", "--minutes", "1.5",
        "--device", "cpu", "--resume",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"minutes": 0.0}, "minutes is 0.0; it must be more than 0 and at most a week"),
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": 1e9}, "minutes is 1000000000.0"),
        ({"clips_seen": 100}, "a comparison has one budget; give --minutes or --clips-seen"),
        ({"minutes": None, "clips_seen": 7}, "clips_seen is 7; it must be a batch or more for every point"),
        ({"seeds": 0}, "seeds is 0; it must be from 1 to 100"),
        ({"contestants": ()}, "contestants is (); it must be at least one"),
    ],
)
def test_budgets_that_are_none_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        contest(**changes)
    assert str(refused.value).startswith(sentence)


def refused(error: type[KinemaError], folder: Path, plan: Contest, *, overwrite: bool = False) -> str:
    """Return the sentence with which a folder is refused."""
    with pytest.raises(error) as refusal, claimed(folder, plan, overwrite=overwrite):
        pass
    return str(refusal.value)


def test_a_folder_keeps_its_plan(tmp_path: Path) -> None:
    folder, plan = tmp_path / "out", contest()
    with claimed(folder, plan, overwrite=False):
        assert "by another process" in refused(TrainingError, folder, plan)
    assert read_contest(folder) == plan
    with claimed(folder, dataclasses.replace(plan, data="elsewhere/mine"), overwrite=False):
        assert read_contest(folder) == plan  # the same clips under another path
    complaint = refused(EvaluationError, folder, contest(minutes=4.0))
    assert "another comparison (minutes: 3.0 -> 4.0); give the command that began it" in complaint


def test_overwriting_deletes_what_a_comparison_made_but_no_answers(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with claimed(folder, contest(), overwrite=False):
        for name in ("one", "study"):
            (folder / name).mkdir()
        (folder / "mine.txt").write_text("mine")
        (folder / "study" / "answers.sqlite").touch()
    assert "people have answered the study" in refused(EvaluationError, folder, contest(minutes=4.0), overwrite=True)
    (folder / "study" / "answers.sqlite").unlink()
    with claimed(folder, contest(minutes=4.0), overwrite=True):
        assert read_contest(folder).minutes == 4.0
        assert sorted(path.name for path in folder.iterdir()) == ["compare.json", "lock", "mine.txt"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is damaged; give another --out"),
        ("[]", "is damaged; give another --out"),
        ('{"format_version": 9}', "has format version 9; this kinema reads version 1"),
        ('{"format_version": 1, "data": 3}', "is damaged (Contest."),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / PLAN_NAME).write_text(text)
    with pytest.raises(EvaluationError) as refused:
        read_contest(tmp_path)
    assert sentence in str(refused.value)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        assert "holds files that are no comparison" in refused(EvaluationError, tmp_path, contest(), overwrite=overwrite)
    assert "is a file; --out is a folder" in refused(EvaluationError, tmp_path / "letter.txt", contest())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
