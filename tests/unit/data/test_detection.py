import shutil
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.data import detection
from kinema.data.detection import DetectSettings, Film, describe, detect_part, divide, on_grid, parts_folder, ranges
from kinema.data.media import Frame, resample
from kinema.data.sources import find_sources, measure
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_17
from moving_dots import write_film
from small_onnx import write_network


def film(folder: Path, frames: int, suffix: str = ".mp4") -> Film:
    path = write_film(folder / f"film{suffix}", frames)
    return Film(measure(find_sources([path]).sources[0], None), folder / "poses.npz")


def test_every_frame_is_in_one_part_and_parts_but_the_first_have_a_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "PART_FRAMES", 20)
    monkeypatch.setattr(detection, "LEAD", 0.2)  # five frames
    settings = DetectSettings(str(write_network(tmp_path / "dots.onnx")), skeleton="coco-17")
    parts = divide(film(tmp_path, 50), settings)
    assert len(parts) == 2
    assert parts[1].source.start == pytest.approx((20 - 0.5) / 25 - 0.2)
    times = []
    for part in parts:
        detect_part(part)
        with np.load(part.file) as arrays:
            times.append(arrays["times"])
    assert [len(part) for part in times] == [20, 30]
    np.testing.assert_allclose(np.concatenate(times), np.arange(50) / 25, atol=1e-6)


def test_films_that_cannot_be_entered_in_the_middle_are_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "PART_FRAMES", 5)
    settings = DetectSettings("dots.onnx")
    assert len(divide(film(tmp_path, 20), settings)) == 4
    assert len(divide(film(tmp_path, 20, ".gif"), settings)) == 1
    assert len(divide(film(tmp_path, 20), DetectSettings("dots.onnx", still=True))) == 1


def test_parts_of_other_settings_or_footage_lie_elsewhere(tmp_path: Path) -> None:
    short, long = film(tmp_path / "a", 4), film(tmp_path / "b", 8)
    settings = [DetectSettings(), DetectSettings(confidence=0.5), DetectSettings(skeleton="coco-17")]
    names = {parts_folder(one, other).name for one in (short, long) for other in settings}
    assert len(names) == 6
    (tmp_path / "c").mkdir()
    shutil.copy(short.source.path, tmp_path / "c" / "other.mp4")
    moved = Film(measure(find_sources([tmp_path / "c" / "other.mp4"]).sources[0], None), short.out)
    assert parts_folder(moved, settings[0]).name == parts_folder(short, settings[0]).name


@pytest.mark.parametrize(
    "times",
    [
        [0, 0.04, 0.08, 0.12],
        [0, 0.04, 0.2, 0.24],  # a pause
        [0, 0.01, 0.02, 0.04, 0.08],  # too many at first
        [0, 0.0401, 0.0802, 0.1203],  # an imprecise rate
        [5.0],
    ],
)
def test_poses_lie_on_the_grid_on_which_frames_are_shown(times: list[float]) -> None:
    images = [np.full((1, 1, 3), number, np.uint8) for number in range(len(times))]
    frames = (Frame(time, image, 0.04) for time, image in zip(times, images, strict=True))
    shown = [int(image[0, 0, 0]) for image in resample(frames, None)]
    assert on_grid(np.array(times), 0.04) == shown


def test_ranges_of_numbers() -> None:
    assert ranges([]) == []
    assert ranges([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]


def test_a_report_counts_frames_without_a_trunk_as_missed() -> None:
    points = np.zeros((4, 1, 17, 3), np.float32)
    points[..., 2] = 0.8
    points[1] = 0
    points[2, 0, 5:] = 0  # a head alone
    points[3, 0, COCO_17.index("LAnkle")] = 0
    points[3, 0, COCO_17.index("Nose"), 2] = 0.4
    report = describe(Poses(points, COCO_17, 10, 10, 25))
    assert (report["frames"], report["found"], report["missed"]) == (4, 2, {"count": 2, "ranges": [(1, 2)]})
    assert report["joints"]["LAnkle"] == {"found": 0.5, "confidence": 0.8}
    assert report["joints"]["Nose"] == {"found": 1, "confidence": 0.6}


def test_where_to_look_is_four_numbers() -> None:
    assert DetectSettings(person="1,2.5,30,40").view == (1, 2.5, 30, 40)
    for wrong in ("1,2,3", "a,b,c,d", "0,0,0,5", "0,0,nan,5"):
        with pytest.raises(ConfigError, match="person is"):
            DetectSettings(person=wrong)
