"""Re-enacted people beside the truth: boxes, nearest frames, pose errors and paired differences by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from kinema.core.errors import EvaluationError
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, write_info, write_shard
from kinema.evaluation.nearest import NearestFrames
from kinema.evaluation.regions import body_box, boxes, face_box
from kinema.evaluation.transfers import PASTED, Reenacted, compared, difference, pose_errors, rows
from kinema.pose.skeleton import COCO_18, find_skeleton
from small_dataset import write_dataset

SHAPE = (4, 40, 32)


def pose(places: dict[str, tuple[float, float]]) -> np.ndarray:
    points = np.zeros((18, 3), np.float32)
    for joint, (x, y) in places.items():
        points[COCO_18.index(joint)] = (x, y, 1)
    return points


STANDING = pose({"Nose": (50, 20), "RAnkle": (40, 80), "LAnkle": (60, 80)})


def test_the_body_s_box_has_a_margin_and_stays_inside() -> None:
    # 60 px tall: 6 px on every side, 6 more above.
    assert body_box(STANDING, 200, 100) == (34, 8, 66, 86)
    assert body_box(STANDING, 62, 84) == (34, 8, 62, 84)
    assert body_box(pose({"Nose": (5, 5), "Neck": (6, 6)}), 200, 100) is None
    small = body_box(pose({"Nose": (5, 5), "Neck": (6, 6), "RHip": (5, 7)}), 200, 100)
    assert small is not None
    assert (small[2] - small[0], small[3] - small[1]) == (16, 16)


def test_the_face_s_box_is_a_quarter_of_the_frame_around_nose_or_ears() -> None:
    assert face_box(STANDING, COCO_18, 200, 100) == (37, 7, 63, 33)
    assert face_box(pose({"REar": (40, 20), "LEar": (60, 20)}), COCO_18, 200, 80) == (40, 10, 60, 30)
    assert face_box(pose({"RAnkle": (40, 80)}), COCO_18, 200, 100) is None


def test_the_tip_of_the_nose_stands_for_a_nose_that_the_body_lacks() -> None:
    """The face's 31st point; ears, which are turned away from the face, come after it."""
    skeleton = find_skeleton("coco-18+face")
    points = np.concatenate([pose({"REar": (40, 20), "LEar": (60, 20)}), np.zeros((70, 3), np.float32)])
    assert face_box(points, skeleton, 200, 80) == (40, 10, 60, 30)
    points[18 + 30] = (70, 30, 1)
    assert face_box(points, skeleton, 200, 80) == (60, 20, 80, 40)
    points[COCO_18.index("Nose")] = (71, 30, 1)
    assert face_box(points, skeleton, 200, 80) == (61, 20, 81, 40)


def test_every_hand_that_is_seen_has_a_box_with_a_margin() -> None:
    skeleton = find_skeleton("coco-18+hands")
    points = np.concatenate([STANDING, np.zeros((42, 3), np.float32)])
    assert boxes(points, skeleton, 200, 100) == {"body": [(34, 8, 66, 86)], "face": [(37, 7, 63, 33)], "hands": []}
    points[18:38] = np.linspace((100, 40, 1), (130, 60, 1), 20, dtype=np.float32)  # 30 px long: 6 px on every side
    assert boxes(points, skeleton, 200, 100)["hands"] == [(94, 34, 136, 66)]
    points[39:60] = np.linspace((20, 50, 1), (20, 70, 1), 21, dtype=np.float32)
    assert boxes(points, skeleton, 200, 100)["hands"] == [(94, 34, 136, 66), (12, 46, 28, 74)]
    assert boxes(points, skeleton, 200, 100)["body"] == [(34, 8, 66, 86)]
    points[41:60, 2] = 0  # two points of the right hand are left
    assert boxes(points, skeleton, 200, 100)["hands"] == [(94, 34, 136, 66)]
    assert "hands" not in boxes(STANDING, COCO_18, 200, 100)


def test_missing_joints_never_move_a_box() -> None:
    points = STANDING.copy()
    points[COCO_18.index("Neck")] = (-1000, 5000, 0)
    assert body_box(points, 200, 100) == body_box(STANDING, 200, 100)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", 10, shape=SHAPE, people=True)


def test_the_nearest_frame_is_that_of_the_same_pose(data: Path) -> None:
    dataset = Dataset(data, "train")
    nearest = NearestFrames(dataset)
    assert len(nearest) == 8 * 4
    wanted = np.array(dataset.array(3, "pose"))
    wanted[..., :2] += 0.2
    np.testing.assert_array_equal(nearest.paste(wanted), dataset.video(3))


def test_a_training_clip_is_not_its_own_nearest_one(data: Path) -> None:
    """Else pasting would be right to the last pixel wherever clips are judged that were trained on."""
    dataset = Dataset(data, "train")
    wanted = np.array(dataset.array(3, "pose"))
    found = NearestFrames(dataset).find(wanted, without=dataset.record(3))
    assert not set(found.tolist()) & set(range(12, 16))
    assert NearestFrames(dataset).find(wanted).tolist() == [12, 13, 14, 15]
    overlapping = replace(dataset.record(3), key="another", first_frame=dataset.record(3).first_frame + 1)
    assert not set(NearestFrames(dataset).find(wanted, without=overlapping).tolist()) & set(range(12, 16))
    made = replace(dataset.record(3), key="another")  # as performers are: of one source, each from frame 0 on
    assert NearestFrames(dataset).find(wanted, without=made).tolist() == [12, 13, 14, 15]


def test_joints_that_are_missing_do_not_count_for_nearness(data: Path) -> None:
    dataset = Dataset(data, "train")
    wanted = np.array(dataset.array(5, "pose"))
    wanted[:, :8] = (9999, 9999, 0)
    np.testing.assert_array_equal(NearestFrames(dataset).paste(wanted), dataset.video(5))
    assert list(NearestFrames(dataset).find(np.zeros((2, 18, 3), np.float32))) == [0, 0]


def test_the_points_of_a_face_do_not_choose_the_frame_alone(tmp_path: Path) -> None:
    """Face 3 px and hand 8 px away, face 6 px away, or no hand: the mean over all points would choose the first before the
    second, and the last before both."""
    skeleton = find_skeleton("coco-18+face+hands")
    wanted = np.full((1, len(skeleton), 3), (50, 50, 1), np.float32)
    wanted[:, 109:, 2] = 0  # the right hand is not seen
    have = np.repeat(wanted, 3, axis=0)
    have[0, 18:88, 0] += 3
    have[0, 88:109, 0] += 8
    have[1, 18:88, 0] += 6
    have[2, :88, 0] += 1
    have[2, 88:109, 2] = 0
    clips = [
        Clip(ClipRecord(str(number), "hall.mp4", 0, 25.0), np.zeros((1, 8, 8, 3), np.uint8), points[None])
        for number, points in enumerate(have)
    ]
    write_shard(tmp_path / "shards/0.tar", clips)
    write_info(tmp_path, DatasetInfo(1, 8, 8, fps=25.0, shards=("shards/0.tar",), kept=3, skeleton=skeleton.name))
    nearest = NearestFrames(Dataset(tmp_path))
    assert nearest.find(wanted).tolist() == [1]
    wanted[:, 88:, 2] = 0  # nor the left one: face and body decide
    assert nearest.find(wanted).tolist() == [2]


def test_data_without_poses_has_no_nearest_frame(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="carry no poses; prepare them with --pose"):
        NearestFrames(Dataset(write_dataset(tmp_path / "d", 4)))


def test_pose_errors_by_hand() -> None:
    asked = np.zeros((2, 3, 3), np.float32)
    asked[0, 0], asked[0, 1], asked[1, 0] = (0, 0, 1), (5, 5, 1), (1, 1, 0.5)
    found = np.zeros((2, 3, 3), np.float32)
    found[0, 0], found[1, 0], found[1, 2] = (3, 4, 1), (1, 2, 1), (7, 7, 1)
    assert pose_errors(asked, found) == (pytest.approx((5 + 1) / 2), 0.5)
    distance, missed = pose_errors(asked, np.zeros((2, 3, 3), np.float32))
    assert np.isnan(distance)
    assert missed == 1.5


def judged(shift: int, clips: int = 6, face_in: int = 6, stopped_after: int | None = None) -> dict:
    """Clips that are `shift` levels too bright, pasted ones 20; the body leaves the picture after `face_in` clips."""
    truth = np.full((2, 100, 120, 3), 100, np.uint8)

    def poses(index: int) -> np.ndarray:
        return np.stack([STANDING] * 2) if index < face_in else np.zeros((2, 18, 3), np.float32)

    def begun() -> Reenacted:
        return Reenacted(
            poses,
            COCO_18,
            lambda index, asked: truth + np.uint8(20),
            find=lambda clip: np.stack([STANDING + np.array([1, 0, 0], np.float32)] * 2),
        )

    found = begun()
    for index in range(clips):
        if index == stopped_after:
            kept, found = found.arrays(), begun()
            found.take(kept)
        found.add(index, truth, truth + np.uint8(shift + index % 2))
    return found.report()


def test_what_was_measured_before_a_stop_counts() -> None:
    for shown in (0, 2, 4, 6):
        assert judged(5, face_in=shown, stopped_after=3) == judged(5, face_in=shown)


def test_scores_by_region_and_the_pasted_frame_beside_them() -> None:
    found = judged(5, face_in=4)
    decibels = [20 * np.log10(255 / 5), 20 * np.log10(255 / 6)]
    for region, clips in (("frame", 6), ("body", 4), ("face", 4)):
        score = found["regions"][region]["psnr"]
        assert score["clips"] == clips
        assert score["value"] == pytest.approx(np.mean(decibels))
        assert score[PASTED] == pytest.approx(20 * np.log10(255 / 20))
        assert score["gain"]["value"] == pytest.approx(score["value"] - score[PASTED])
    assert found["clips"]["face psnr"] == pytest.approx([*decibels * 2, None, None])
    assert found["poses"]["pose distance"]["value"] == pytest.approx(1)
    assert found["poses"]["missed detections"]["value"] == 0
    names = [line[0] for line in rows(found)]
    assert {"face: psnr, dB", "pose distance, in 4 of 6 clips", "missed detections"} <= set(names)


def test_a_face_that_is_never_seen_is_said() -> None:
    found = judged(5, face_in=0)
    assert found["regions"]["face"]["ssim"]["value"] is None
    assert ("face: ssim", "never in view", "", "", "") in rows(found)


def test_a_difference_is_taken_clip_by_clip() -> None:
    one = [1.0, 2.0, 3.0, 4.0, None, 6.0, 7.0, 8.0]
    other = [1.1, 2.3, 3.2, 4.6, 5.0, 6.2, 7.7, 8.1]
    apart = np.array([b - a for a, b in zip(one, other, strict=True) if a is not None])
    mean, low, high, p = difference(one, other) or (0, 0, 0, 0)
    assert mean == pytest.approx(apart.mean())
    assert apart.min() <= low < mean < high <= apart.max()
    expected: Any = wilcoxon(apart)
    assert p == pytest.approx(expected.pvalue)
    assert difference(one, one) == (0, 0, 0, 1)
    assert difference([None, 1.0], [1.0, 1.0]) is None


def test_a_table_of_ablations() -> None:
    columns, lines = compared({name: judged(shift)["clips"] for name, shift in (("full", 5), ("no smoothing", 8))})
    assert columns == ["against full", "no smoothing"]
    cells = {line[0]: line[1] for line in lines}
    assert cells["face psnr"].startswith("-3.7") or cells["face psnr"].startswith("-3.8")
    assert "p " in cells["body psnr"]


def test_face_and_hands_are_counted_apart_from_the_body() -> None:
    """The body is found 1 pixel away, the face 3, and of the hands one; the numbers of the body are those of a body alone."""
    skeleton, rest = find_skeleton("coco-18+face+hands"), np.tile(np.array([50, 50, 1], np.float32), (112, 1))
    asked = np.concatenate([STANDING, rest])
    seen = asked + np.array([1, 0, 0], np.float32)
    seen[skeleton.pieces["face"], 0] += 2
    seen[109:] = 0
    truth = np.full((2, 100, 120, 3), 100, np.uint8)
    found = Reenacted(
        lambda index: np.stack([asked] * 2), skeleton, lambda index, poses: truth, find=lambda clip: np.stack([seen] * 2)
    )
    for index in range(2):
        found.add(index, truth, truth + np.uint8(index))
    report = found.report()
    assert report["regions"]["hands"]["psnr"]["clips"] == 2
    assert report["clips"]["hands psnr"] == pytest.approx([100, 20 * np.log10(255)])
    numbers = {name: score["value"] for name, score in report["poses"].items()}
    assert numbers == pytest.approx(
        {
            **{"pose distance": 1, "pose distance of face": 3, "pose distance of hands": 1},
            **{"missed detections": 0, "missed detections of face": 0, "missed detections of hands": 21},
        }
    )
    assert set(numbers) <= set(report["clips"])
