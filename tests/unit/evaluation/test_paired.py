"""Clips beside the truth: means, intervals, still pictures and best of n by hand; who belongs to whom."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.encode import write_video
from kinema.evaluation.clips import Source, open_clips
from kinema.evaluation.paired import PairedQuestion, Pairing, interval, judge_pairs, measures_for, pair_sources
from kinema.evaluation.paired_page import best_rows, compared, plot, rows, write_paired_reports
from small_dataset import make_video, write_dataset

SHAPE, CLIPS = ClipShape(5, 24, 24), 10


def flat(levels: Sequence[float]) -> np.ndarray:
    """A clip whose frames have one level each."""
    return np.tile(np.array(levels, np.uint8)[:, None, None, None], (1, 24, 24, 3))


def truth(index: int) -> np.ndarray:
    """Grows brighter by index + 4 levels a frame."""
    return flat([100 + frame * (index + 4) for frame in range(5)])


def pairing(make: Callable[[int, int], np.ndarray], **fields: Any) -> Pairing:
    """Predictions from one frame; `make` takes a clip's number and that of the future."""
    usual: dict[str, Any] = {
        "kind": "predictions",
        "name": "run",
        "truth_name": "data",
        "count": CLIPS,
        "shape": SHAPE,
        "fps": 25.0,
        "past": 1,
        "truth": lambda indices: [truth(index) for index in indices],
        "make": lambda indices, draw: [make(index, draw) for index in indices],
        "key": "clip {}".format,
    }
    return Pairing(**(usual | fields))


def shifted(by: float) -> Callable[[int, int], np.ndarray]:
    """Every frame but the first is too bright by so many levels."""
    return lambda index, draw: np.concatenate([truth(index)[:1], truth(index)[1:] + np.uint8(by)])


def decibels(error: float) -> float:
    return 20 * np.log10(255 / error)


def judged(made: Pairing, **question: Any) -> dict[str, Any]:
    return judge_pairs(made, PairedQuestion(**question)).report


def test_scores_and_still_pictures_by_hand() -> None:
    """The future is 4 levels off; the repeated frame is off by 1 to 4 steps, the mean frame by 2, 1, 0, 1, 2."""
    found = judged(pairing(shifted(4)))
    score = found["scores"]["psnr"]
    assert score["value"] == pytest.approx(decibels(4), abs=1e-9)
    assert (score["low"], score["high"]) == pytest.approx((decibels(4), decibels(4)), abs=1e-9)
    assert score["given frames"]["value"] == 100  # equal frames count as 100 dB
    assert score["curve"]["value"] == pytest.approx([100, *[decibels(4)] * 4], abs=1e-9)
    steps = np.arange(4, 14)
    repeated = np.array([[decibels(frame * step) for frame in range(1, 5)] for step in steps])
    assert score["curve"]["repeated frame"] == pytest.approx([100, *repeated.mean(axis=0)], abs=1e-9)
    assert score["repeated frame"] == pytest.approx(repeated.mean(), abs=1e-9)
    mean = np.array([[min(decibels(abs(frame) * step), 100) if frame else 100 for frame in (-1, 0, 1, 2)] for step in steps])
    assert score["mean frame"] == pytest.approx(mean.mean(), abs=1e-9)
    gain = decibels(4) - repeated.mean(axis=1)
    assert score["gain over repeating"]["value"] == pytest.approx(gain.mean(), abs=1e-9)
    bounds = ttest_1samp(gain, 0).confidence_interval()
    assert (score["gain over repeating"]["low"], score["gain over repeating"]["high"]) == pytest.approx(tuple(bounds), abs=1e-9)
    assert score["clips better than repeating"] == (gain > 0).mean() == 1
    assert found["motion"]["motion of real clips"] == pytest.approx(steps.mean())
    assert found["protocol"]["given frames"] == 1
    assert not [said for said in found["warnings"] if "nearer to the truth" in said or "still pictures" in said]


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 12)
    bounds = ttest_1samp(values, 0).confidence_interval()
    assert interval(values) == pytest.approx((values.mean(), bounds.low, bounds.high), abs=1e-12)


def test_best_of_n_by_hand_and_each_future_once() -> None:
    """Future d is 8, 5, 9, 2, 8, ... levels off: the best of 1, 2, 4 and 6 are 8, 5, 2 and 2 off."""
    errors, asked = [8, 5, 9, 2, 8, 8], list[int]()

    def make(index: int, draw: int) -> np.ndarray:
        asked.append(draw)
        return shifted(errors[draw - 3])(index, draw)

    found = judged(pairing(make), draws=6, seed=3)
    for name, sign in (("psnr", 1), ("ssim", 1)):
        values = [value for _, value in found["scores"][name]["best of"]]
        assert [n for n, _ in found["scores"][name]["best of"]] == [1, 2, 4, 6]
        assert np.all(np.diff(values) * sign >= 0)
    assert [value for _, value in found["scores"]["psnr"]["best of"]] == pytest.approx([decibels(n) for n in (8, 5, 2, 2)])
    assert not found["deterministic"]
    assert {draw: asked.count(draw) for draw in range(4, 9)} == {
        4: 18,
        5: 10,
        6: 10,
        7: 10,
        8: 10,
    }  # 8 to see whether it differs
    assert [line[0] for line in best_rows(found)] == ["futures", "1", "2", "4", "6"]


def test_one_future_is_a_flat_curve_and_is_said() -> None:
    asked = list[int]()

    def make(index: int, draw: int) -> np.ndarray:
        asked.append(draw)
        return shifted(4)(index, draw)

    found = judged(pairing(make), draws=8)
    assert found["deterministic"]
    assert set(asked) == {0, 1}
    assert asked.count(1) == 8  # the first portion alone
    assert len({value for _, value in found["scores"]["psnr"]["best of"]}) == 1
    assert any("deterministic" in said for said in found["warnings"])


@pytest.mark.parametrize("damage", ["none", "cut", "other question"])
def test_a_stopped_judgement_goes_on(tmp_path: Path, damage: str) -> None:
    """Ten clips in portions of eight, stopped in the second: the first is not made again, unless the file does not fit."""
    asked, file = list[int](), tmp_path / "card" / "unfinished.npz"

    def make(index: int, draw: int) -> np.ndarray:
        asked.append(index)
        return shifted(index + draw + 1)(index, draw)

    def stops(index: int, draw: int) -> np.ndarray:
        if len(asked) >= 8 * 3:  # two futures, and one more look whether they differ
            raise KeyboardInterrupt
        return make(index, draw)

    question = PairedQuestion(draws=2)
    with pytest.raises(KeyboardInterrupt):
        judge_pairs(pairing(stops), question, unfinished=file)
    first = set(asked)
    assert len(first) == 8
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    asked.clear()
    question = PairedQuestion(draws=2, seed=int(damage == "other question"))
    card = judge_pairs(pairing(make), question, unfinished=file)
    assert (len(set(asked) - first) == 2 and len(asked) == 4 + 6) == (damage == "none")  # the last six are for the page
    assert card.report == judge_pairs(pairing(make), question).report


def test_still_pictures_and_a_lost_race_are_said() -> None:
    still = judged(pairing(lambda index, draw: np.repeat(truth(index)[:1], 5, axis=0)))
    assert still["motion"]["still clips"] == 1
    assert any("nearly still pictures" in said for said in still["warnings"])
    assert still["scores"]["psnr"]["gain over repeating"]["value"] == 0
    worse = judged(pairing(shifted(100)))
    assert any(said.startswith("The given frame, repeated, is nearer to the truth by psnr, ssim") for said in worse["warnings"])


def test_reconstructions_have_no_given_frames() -> None:
    found = judged(pairing(lambda index, draw: truth(index), kind="reconstructions", past=0))
    assert found["scores"]["psnr"]["given frames"] is None
    assert found["scores"]["psnr"]["value"] == 100
    repeated = np.mean([[decibels(frame * step) for frame in range(1, 5)] for step in range(4, 14)])
    assert found["scores"]["psnr"]["repeated frame"] == pytest.approx(repeated)  # without the frame itself
    assert found["scores"]["psnr"]["gain over repeating"]["value"] == pytest.approx(100 - repeated)
    assert found["scores"]["ssim"]["best of"] == [[1, pytest.approx(1)]]
    assert best_rows(found) == []
    assert any("100.0% of the judged frames equal the true ones" in said for said in found["warnings"])


def test_measures_are_those_that_frames_allow() -> None:
    assert [one.name for one in measures_for(ClipShape(5, 64, 64), ())] == ["psnr", "ssim", "ms-ssim[3 scales]"]
    assert [one.name for one in measures_for(ClipShape(5, 16, 16), ())] == ["psnr", "ssim"]
    assert [one.name for one in measures_for(ClipShape(5, 176, 200), ())] == ["psnr", "ssim", "ms-ssim"]
    with pytest.raises(EvaluationError, match="SSIM needs frames of 11x11"):
        measures_for(ClipShape(5, 10, 64), ())


def test_too_few_pairs_and_clips_of_another_shape_are_refused() -> None:
    with pytest.raises(EvaluationError, match="data has 7 clips to stand beside run; a mean with an interval needs at least 8"):
        judged(pairing(shifted(4), count=7))
    for count, words in ((4, "--count 4 is below the least number of pairs, 8"), (11, "data has 10 clips to stand beside run")):
        with pytest.raises(EvaluationError, match=f"{words}; give --count 8 to 10"):
            judged(pairing(shifted(4)), count=count)
    with pytest.raises(EvaluationError, match="run made clips of 4x24x24 and the true ones have 5x24x24"):
        judged(pairing(lambda index, draw: truth(index)[1:]))


def test_the_page_and_the_table(tmp_path: Path) -> None:
    card = judge_pairs(pairing(lambda index, draw: shifted(index + draw + 1)(index, draw)), PairedQuestion(draws=2))
    report = write_paired_reports(tmp_path, card, {"time": "now", "machine": "here"})
    page = (tmp_path / "report.html").read_text()
    assert page.count("<polyline") == 3 * len(report["scores"])
    assert page.count("data:image/webp;base64,") == len(card.shown) == 6
    assert "http" not in page
    assert "nan" not in page
    qualities = [float(words.split()[2]) for _, _, words in card.shown]
    assert qualities == sorted(qualities, reverse=True)
    assert any(line[0] == "  psnr, best of 2 futures" for line in rows(report))
    columns, lines = compared({"one": report, "other": report})
    assert [line[0] for line in lines] == ["one", "other", "given frame repeated", "mean frame"]
    assert all(len(line) == len(columns) for line in lines)


def test_a_curve_begins_where_something_was_to_be_made() -> None:
    """Three frames after one that was given; values 10 to 30 and 5 % of room at either end."""
    values = [100.0, 30.0, 20.0, 10.0]
    curve = dict.fromkeys(("value", "low", "high", "repeated frame", "mean frame"), values)
    found = plot("psnr", {"unit": "dB", "better": "higher", "curve": curve}, past=1)
    assert found.judged == found.repeated == "52.0,8.6 266.0,95.0 480.0,181.4"
    assert [words for _, words in found.frames] == ["1", "2", "3"]
    assert [words for _, words in found.ticks] == ["10", "20", "30"]


def source(name: str, names: list[str] | None, **fields: Any) -> Source:
    clips = [flat([number] * 5) for number in range(CLIPS)]
    made = Source(name, SHAPE, 25.0, "pixels", CLIPS, lambda indices: [clips[index] for index in indices])
    return replace(made, names=(lambda: names) if names else None, **fields)


NAMES = [f"clip{number}" for number in range(CLIPS)]


def test_names_decide_who_belongs_to_whom() -> None:
    pairs = pair_sources(source("made", NAMES[::-1]), source("true", NAMES))
    assert pairs.make([0, 9], 0)[0][0, 0, 0, 0] == 9
    assert pairs.make([0, 9], 0)[1][0, 0, 0, 0] == 0
    assert pairs.key(3) == "clip3"
    by_order = pair_sources(source("made", None), source("true", NAMES))
    assert by_order.make([3], 0)[0][0, 0, 0, 0] == 3
    assert by_order.key(3) == "clip3"


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            source("made", [*NAMES[:-1], "other"]),
            "made and true do not hold the same clips: only made has other; only true has clip9",
        ),
        (source("made", NAMES[:-5]), "only true has clip5, clip6, clip7 and 2 more; clips that belong together carry one name"),
        (source("made", [*NAMES[:-1], "clip0"]), "made has two clips called 'clip0'"),
        (source("made", None, count=9), "made has 9 clips and true 10; clips without names belong together by their order"),
        (source("made", NAMES, shape=ClipShape(8, 24, 24)), r"made has clips of 8x24x24 and true of 5x24x24 .* make both with"),
        (source("made", NAMES, fps=12.5), "made has 12.5 frames per second and true 25; frames of unequal times"),
    ],
)
def test_clips_that_do_not_belong_together_are_refused(made: Source, sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        pair_sources(made, source("true", NAMES))


def test_folders_and_datasets_have_names_and_arrays_have_none(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in "ba":
        write_video(tmp_path / "files" / f"{name}.mp4", make_video(0, 4, 16, 16), 25.0)
    np.save(tmp_path / "raw.npy", np.stack([make_video(0)] * 3))
    sources = [open_clips(path) for path in (tmp_path / "files", write_dataset(tmp_path / "data"), tmp_path / "raw.npy")]
    assert [source.names and source.names() for source in sources] == [["a", "b"], ["00000", "00005"], None]
