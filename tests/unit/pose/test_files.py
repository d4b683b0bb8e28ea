import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.pose.files import SIDE_FILE, missing_frames, read_poses, write_poses
from kinema.pose.sequence import Poses, concatenate
from kinema.pose.skeleton import BODY_25, COCO_17, COCO_18, EDN_23, Skeleton, anonymous

FOOTAGE = {"width": 640, "height": 480, "fps": 25.0}


def person(joints: int = 25, x: float = 100, **fields: object) -> dict[str, object]:
    """Return a person as OpenPose writes one, with the last joint missing."""
    numbers = [value for joint in range(joints - 1) for value in (x + joint, 50.5 + joint, 0.9)]
    return {"pose_keypoints_2d": [*numbers, 0, 0, 0], **fields}


def folder(place: Path, frames: dict[int, list[dict[str, object]]], **fields: object) -> Path:
    place.mkdir(exist_ok=True)
    for number, people in frames.items():
        (place / f"film_2_{number:06d}_keypoints.json").write_text(json.dumps({**fields, "people": people}))
    return place


def some(skeleton: Skeleton = BODY_25, frames: int = 4, people: int = 2, **fields: object) -> Poses:
    rng = np.random.default_rng(1)

    def drawn(*shape: int) -> np.ndarray:
        points = rng.uniform(1, 400, (frames, people, *shape, 3)).astype(np.float32)
        points[..., 2] = rng.uniform(0.2, 1, points.shape[:-1])
        points[1, 0, ..., 3, :] = 0
        return points

    parts = {"face": drawn(70), "hands": drawn(2, 21)}
    return Poses(drawn(len(skeleton)), skeleton, **{**FOOTAGE, "people": (4, 2)[:people], **parts, **fields})


def assert_same(one: Poses, other: Poses) -> None:
    for name in ("skeleton", "width", "height", "fps", "people", "begins"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("points", "face", "hands"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@pytest.mark.parametrize(("joints", "skeleton"), [(18, COCO_18), (23, EDN_23), (25, BODY_25)])
def test_the_number_of_joints_tells_the_layout(tmp_path: Path, joints: int, skeleton: Skeleton) -> None:
    poses = read_poses(folder(tmp_path, {0: [person(joints)]}), **FOOTAGE)
    assert poses.skeleton == skeleton
    np.testing.assert_allclose(poses.points[0, 0, 2], [102, 52.5, 0.9], rtol=1e-6)


def test_zeros_are_missing(tmp_path: Path) -> None:
    poses = read_poses(folder(tmp_path, {0: [person()]}), **FOOTAGE)
    assert poses.present[0, 0].tolist() == [True] * 24 + [False]
    assert np.isnan(poses.points[0, 0, 24, :2]).all()


def test_a_missing_file_is_a_missing_frame_and_listed(tmp_path: Path) -> None:
    poses = read_poses(folder(tmp_path, {7: [person()], 9: [person()], 10: []}), **FOOTAGE)
    assert len(poses) == 4
    assert missing_frames(poses) == [8]
    assert poses.present.any(axis=(1, 2)).tolist() == [True, False, True, False]


def test_face_and_hand_lists_may_be_empty_or_absent(tmp_path: Path) -> None:
    full = person(hand_left_keypoints_2d=[1.0, 2, 0.5] * 21, face_keypoints_2d=[], hand_right_keypoints_2d=[])
    poses = read_poses(folder(tmp_path, {0: [full], 1: [person()]}), **FOOTAGE)
    assert poses.face is None
    assert poses.hands is not None
    assert (poses.hands[..., 2] > 0).any(axis=-1).tolist() == [[[True, False]], [[False, False]]]


def test_several_people_keep_the_order_of_the_file(tmp_path: Path) -> None:
    poses = read_poses(folder(tmp_path, {0: [person(x=10), person(x=300)], 1: [person(x=301)]}), **FOOTAGE)
    assert poses.points.shape[:2] == (2, 2)
    assert poses.people == (0, 1)
    assert poses.points[:, :, 0, 0].tolist()[0] == [10, 300]
    assert poses.points[1, 0, 0, 0] == 301
    assert not poses.present[1, 1].any()


def test_ids_of_the_files_say_who_is_who(tmp_path: Path) -> None:
    frames = {0: [person(x=10, person_id=[3]), person(x=300, person_id=[5])], 1: [person(x=301, person_id=[5])]}
    poses = read_poses(folder(tmp_path, frames), **FOOTAGE)
    assert poses.people == (3, 5)
    assert not poses.present[1, 0].any()
    assert poses.points[1, 1, 0, 0] == 301


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    people = [person(mood="happy", person_id=[-1]), person(x=300)]
    source = folder(tmp_path / "a", {5: people, 6: []}, version=1.3, camera={"id": 2})
    write_poses(tmp_path / "b", read_poses(source, **FOOTAGE))
    files = sorted((tmp_path / "b").glob("*_keypoints.json"))
    assert [file.name for file in files] == ["000000000005_keypoints.json", "000000000006_keypoints.json"]
    frame = json.loads(files[0].read_text())
    assert (frame["version"], frame["camera"]) == (1.3, {"id": 2})
    assert frame["people"][0]["mood"] == "happy"
    assert "mood" not in frame["people"][1]
    assert frame["people"][0]["pose_keypoints_2d"] == people[0]["pose_keypoints_2d"]


def test_fields_of_frames_do_not_wander_to_other_frames(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", {5: [person(mood="happy")], 6: [person()]})
    write_poses(tmp_path / "b", read_poses(source, **FOOTAGE).window(1, 2))
    (file,) = (tmp_path / "b").glob("*_keypoints.json")
    assert "happy" not in file.read_text()


@pytest.mark.parametrize("name", ["poses.npz", "folder"])
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    one = some()
    poses = concatenate([one, replace(one, points=one.points + np.float32(1))])
    write_poses(tmp_path / name, poses)
    assert_same(read_poses(tmp_path / name), poses)


def test_a_person_who_is_never_there_comes_back_from_a_folder(tmp_path: Path) -> None:
    poses = Poses(np.zeros((3, 1, 25, 3), np.float32), BODY_25, **FOOTAGE, people=(6,))
    write_poses(tmp_path / "empty", poses)
    again = read_poses(tmp_path / "empty")
    assert again.people == (6,)
    assert not again.present.any()


@pytest.mark.parametrize("skeleton", [anonymous(7), COCO_17, Skeleton("own", ("A", "B"), ((0, 1),))])
def test_an_npz_holds_any_skeleton(tmp_path: Path, skeleton: Skeleton) -> None:
    poses = some(skeleton) if len(skeleton) > 3 else Poses(np.ones((2, 1, 2, 3), np.float32), skeleton, **FOOTAGE)
    write_poses(tmp_path / "a.npz", replace(poses, extra={"detector": "x"}))
    again = read_poses(tmp_path / "a.npz")
    assert again.skeleton == skeleton
    assert again.extra == {"detector": "x"}


def test_the_side_file_is_believed_before_the_film(tmp_path: Path) -> None:
    written = some()
    write_poses(tmp_path / "a", written)
    again = read_poses(tmp_path / "a", width=2 * written.width, height=2 * written.height, fps=50)
    assert (again.width, again.height, again.fps) == (written.width, written.height, written.fps)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    for name in ("a.npz", "a"):
        write_poses(tmp_path / name, some())
        with pytest.raises(DataError, match="exists"):
            write_poses(tmp_path / name, some())
        write_poses(tmp_path / name, some(frames=2), overwrite=True)
        assert len(read_poses(tmp_path / name)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.npz"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    write_poses(tmp_path / "a", some())
    (tmp_path / "a" / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"thesis\.tex"):
        write_poses(tmp_path / "a", some(), overwrite=True)
    assert (tmp_path / "a" / "thesis.tex").exists()


def test_openpose_without_size_or_rate_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {0: [person()]})
    for name in FOOTAGE:
        with pytest.raises(DataError, match="give width, height and frames per second"):
            read_poses(tmp_path, **{**FOOTAGE, name: None})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{not", "is no JSON"),
        ("[1, 2]", "not OpenPose's"),
        ('{"annotations": []}', "not OpenPose's"),
        ('{"people": [{"keypoints": []}]}', "not OpenPose's"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 0.5]}]}', "has 3 numbers; OpenPose writes 54 or 69 or 75"),
        ('{"people": [{"pose_keypoints_2d": "abc"}]}', "no list of numbers"),
        (json.dumps({"people": [person(face_keypoints_2d=[1, 2, 0.5])]}), "face_keypoints_2d has 3 numbers"),
    ],
)
def test_json_that_is_not_openposes_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "film_0_keypoints.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_poses(tmp_path, **FOOTAGE)


def test_relative_coordinates_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, {0: [{"pose_keypoints_2d": [0.5, 0.25, 0.9] * 25}]})
    with pytest.raises(DataError, match="relative"):
        read_poses(tmp_path, **FOOTAGE)


def test_nobody_in_any_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no person is in any of the 2 files"):
        read_poses(folder(tmp_path, {0: [], 1: []}), **FOOTAGE)


def test_two_layouts_in_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"25 body joints and files before it in .* have 18"):
        read_poses(folder(tmp_path, {0: [person(18)], 1: [person(25)]}), **FOOTAGE)


def test_file_names_without_a_usable_number_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, {0: [person()]})
    (tmp_path / "other_000000_keypoints.json").write_text('{"people": []}')
    with pytest.raises(DataError, match="both of frame 0"):
        read_poses(tmp_path, **FOOTAGE)
    (tmp_path / "a_keypoints.json").write_text('{"people": []}')
    with pytest.raises(DataError, match="no frame number"):
        read_poses(tmp_path, **FOOTAGE)


def test_numbers_that_count_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frame numbers"):
        read_poses(folder(tmp_path, {0: [person()], 20261127: [person()]}), **FOOTAGE)


def test_places_without_poses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_poses(tmp_path / "none.npz")
    with pytest.raises(DataError, match="holds no"):
        read_poses(tmp_path)
    (tmp_path / "a.yml").touch()
    with pytest.raises(DataError, match="YML"):
        read_poses(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="no pose file"):
        read_poses(tmp_path / "a.txt")


def test_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(DataError, match="damaged"):
        read_poses(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match="no poses of kinema but weights"):
        read_poses(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", format_version=99, points=np.zeros((1, 1, 18, 3)))
    with pytest.raises(DataError, match="version 99"):
        read_poses(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", format_version=1, points=np.zeros((1, 1, 18, 3)))
    with pytest.raises(DataError, match="damaged"):
        read_poses(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", format_version=1, points=np.array([{}], object))
    with pytest.raises(DataError, match=r"damaged"):
        read_poses(tmp_path / "e.npz")
    np.save(tmp_path / "f.npy", np.zeros(3))
    (tmp_path / "f.npy").rename(tmp_path / "f.npz")
    with pytest.raises(DataError, match="holds one array"):
        read_poses(tmp_path / "f.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": "x"},
        {"format_version": [1, 1]},
        {"size": [np.inf, 240]},
        {"extra": "[1]"},
        {"people": [0, 1, 2]},
        {"people": [3, 3]},
        {"begins": []},
        {"begins": [0, 5, 2]},
        {"edges": [[0, 99]], "skeleton": "own"},
        {"fps": 1e-4},
    ],
    ids=str,
)
def test_npz_files_with_wrong_values_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_poses(tmp_path / "a.npz", some(COCO_17))
    with np.load(tmp_path / "a.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert "allow_pickle" not in arrays
    np.savez(tmp_path / "a.npz", **arrays | {name: np.array(value) for name, value in change.items()})
    with pytest.raises(DataError):
        read_poses(tmp_path / "a.npz")


def test_npz_files_with_any_damaged_byte_are_read_or_refused(tmp_path: Path) -> None:
    """Seen to fail before, with errors of zlib, zipfile and the tokenizer."""
    write_poses(tmp_path / "a.npz", some(COCO_17))
    whole, generator = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] = generator.integers(256)
        (tmp_path / "b.npz").write_bytes(damaged)
        with suppress(DataError):
            read_poses(tmp_path / "b.npz")


def test_files_that_begin_late_are_of_those_frames_of_a_film(tmp_path: Path) -> None:
    source = folder(tmp_path, {5: [person()], 6: [person()], 9: [person()]})
    for frames, length, missing in (
        (None, 5, [7, 8]),
        (10, 10, [0, 1, 2, 3, 4, 7, 8]),
        (9, 9, [1, 2, 3, 4, 7, 8]),
        (5, 5, [7, 8]),
    ):
        poses = read_poses(source, **FOOTAGE, frames=frames)
        assert (len(poses), missing_frames(poses)) == (length, missing)


@pytest.mark.parametrize("number", ["1" + 400 * "0", "1e39"])
def test_numbers_that_are_no_pixels_are_refused(tmp_path: Path, number: str) -> None:
    folder(tmp_path, {0: [person()]})
    file = next(tmp_path.glob("*_keypoints.json"))
    file.write_text(file.read_text().replace("[100,", f"[{number},"))
    with pytest.raises(DataError, match="no list of numbers"):
        read_poses(tmp_path, **FOOTAGE)


def test_a_damaged_side_file_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {0: [person()]})
    (tmp_path / SIDE_FILE).write_text('{"format_version": 1}')
    with pytest.raises(DataError, match=r"poses\.json is damaged"):
        read_poses(tmp_path)


def test_layouts_that_openpose_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="coco-17"):
        write_poses(tmp_path / "a", some(COCO_17))
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"name an \.npz file or a folder"):
        write_poses(tmp_path / "a.json", some())
