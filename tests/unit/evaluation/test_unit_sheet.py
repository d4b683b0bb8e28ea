"""Which clips a unit is shown with, and what its pictures look like."""

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.evaluation.layers import find_layer, layers_of
from kinema.evaluation.unit_sheet import Footage, dimmed, examine, heat_maps
from kinema.evaluation.units import Question
from small_dataset import make_mask, make_video
from small_watchers import Watching, WatchingConfig, bright_square

SHAPE = (4, 16, 16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve clips of three sources, of a square that is darker in every later clip."""

    def clip(number: int) -> Clip:
        video = np.zeros((*SHAPE, 3), np.uint8)
        video[:, 4:12, 4:12] = 255 - 4 * number
        record = ClipRecord(f"{number:02d}", f"{'abc'[number // 4]}.mp4", number * 4, 25.0, "xy"[number % 2])
        return Clip(record, video, mask=np.where(video[..., 0] > 0, 255, 0).astype(np.uint8))

    folder = tmp_path_factory.mktemp("data")
    write_shard(folder / shard_name(0), map(clip, range(12)))
    write_info(folder, DatasetInfo(*SHAPE, fps=25.0, shards=(shard_name(0),), kept=12, labels=("x", "y")))
    return Dataset(folder)


@pytest.mark.parametrize(("top", "keys"), [(3, ["00", "04", "08"]), (4, ["00", "01", "02", "03"])])
def test_a_source_is_shown_once_where_there_are_enough(data: Dataset, top: int, keys: list[str]) -> None:
    footage = Footage(data, None, top, seed=0)
    assert footage.by_source is (top <= 3)
    layer = find_layer(layers_of(Watching(bright_square(3), WatchingConfig(*SHAPE))), None, "hand-made")
    question = Question((0,), top=top, occlusions=0, share=0.2)
    report, views, clips = examine(layer, footage, question, lambda what, done, total: None)
    (unit,) = report["units"]
    assert [clip["key"] for clip in unit["clips"]] == keys
    assert report["data"]["shown once"] == ("source" if top == 3 else "clip")
    # Even clips are x: three of three sources, or two of four clips.
    assert (unit["label"], unit["label share"]) == ("x", 1.0 if top == 3 else 0.5)
    assert unit["figure in lit region"] == pytest.approx(4, rel=0.3)  # the square is a quarter of the picture, all of it lit
    assert report["summary"]["dead"] == [1]
    assert sorted(clips) == sorted(views[0].clips)


def test_too_few_clips_are_refused(data: Dataset) -> None:
    assert Footage(data, 5, 5, seed=0).count == 5
    with pytest.raises(EvaluationError, match="5 clips are fewer than the 6 that a unit is shown with; give --top 5"):
        Footage(data, 5, 6, seed=0)
    with pytest.raises(EvaluationError, match="has 12 clips; give --clips 12 or fewer"):
        Footage(data, 13, 3, seed=0)


def test_clips_and_foreground_are_those_of_their_records(data: Dataset) -> None:
    footage = Footage(data, 7, 3, seed=2)
    assert footage.labels == ["xy"[int(record.key) % 2] for record in footage.records]
    for number, record in enumerate(footage.records):
        assert footage.read([number])[0].max() == 255 - 4 * int(record.key)
    figure = footage.figure(0)
    assert figure is not None
    assert figure.mean() == 0.25


def test_what_is_not_lit_is_dark() -> None:
    clip = make_video(0, *SHAPE)
    lit = make_mask(1, *SHAPE) > 127
    shown = dimmed(clip, lit)
    assert np.array_equal(shown[lit], clip[lit])
    assert np.array_equal(shown[~lit], (clip[~lit] * 0.3).astype(np.uint8))
    assert np.array_equal(dimmed(clip, lit[:1]), shown[:1])  # a unit of pictures lights the first frame


def test_the_peak_is_the_brightest() -> None:
    change = np.zeros((3, 4, 5), np.float32)
    change[2, 1, 3] = 0.5
    picture, over_time = heat_maps(change)
    assert (picture.shape, over_time.shape) == ((1, 4, 5, 3), (1, 4, 3, 3))  # height by width, height by frames
    assert np.unravel_index(picture[0].sum(axis=-1).argmax(), (4, 5)) == (1, 3)
    assert np.unravel_index(over_time[0].sum(axis=-1).argmax(), (4, 3)) == (1, 2)
    assert [still.shape for still in heat_maps(change[0])] == [(1, 4, 5, 3)]
