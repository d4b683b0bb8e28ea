from dataclasses import replace

import numpy as np
import pytest

from kinema.core.errors import ConfigError, DataError
from kinema.pose.people import absent_frames, are_unordered, areas, boxes, choose, follow, frame_list, is_choice, overlap, take
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import COCO_18


def standing(*people: tuple[float, float] | None, height: float = 40) -> np.ndarray:
    """Return a frame with people whose middle is at x, y; None is nobody."""
    frame = np.zeros((len(people), 18, 3), np.float32)
    for place, at in enumerate(people):
        if at is not None:
            frame[place, :, 0] = at[0] + np.linspace(-10, 10, 18)
            frame[place, :, 1] = at[1] + np.linspace(-height / 2, height / 2, 18)
            frame[place, :, 2] = 0.8
    return frame


def film(frames: list[np.ndarray], **fields: object) -> Poses:
    return Poses(np.stack(frames), COCO_18, 320, 240, 10.0, extra={UNORDERED: True}, **fields)


def shuffled(frames: int = 20) -> Poses:
    """Return one who walks to the right and one who stands; the list's order changes in every other frame."""
    return film(
        [
            standing((50 + 2 * time, 100), (200, 100)) if time % 2 else standing((200, 100), (50 + 2 * time, 100))
            for time in range(frames)
        ]
    )


def test_boxes_go_round_what_was_found() -> None:
    poses = film([standing((50, 100), None)])
    np.testing.assert_allclose(boxes(poses)[0, 0], [40, 80, 60, 120])
    assert np.isnan(boxes(poses)[0, 1]).all()
    assert areas(poses).tolist() == [[800, 0]]


def test_overlap_by_hand() -> None:
    one = np.array([[0, 0, 2, 2]], np.float32)
    other = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]], np.float32)
    np.testing.assert_allclose(overlap(one, other), [[1 / 7, 1, 0]], rtol=1e-6)


def test_people_are_followed_whatever_their_order() -> None:
    poses = shuffled()
    assert are_unordered(poses)
    followed = follow(poses)
    assert followed.poses.people == (0, 1)
    assert not are_unordered(followed.poses)
    middle = followed.poses.points[..., 0].mean(axis=-1)
    np.testing.assert_allclose(middle[:, 0], 200)
    np.testing.assert_allclose(middle[:, 1], 50 + 2 * np.arange(20))
    assert (followed.nobody, followed.changes, followed.dropped) == ((), (), 0)


def test_faces_hands_and_fields_go_with_their_person() -> None:
    poses = shuffled(6)
    face = np.ones((6, 2, 70, 3), np.float32)
    face[..., 0] = poses.points[:, :, :1, 0]
    fields = {str(time): {str((time + 1) % 2): {"mood": "walks"}} for time in range(6)}
    followed = follow(replace(poses, face=face, extra={UNORDERED: True, "person_fields": fields})).poses
    assert followed.face is not None
    np.testing.assert_array_equal(followed.face[..., 0, 0], followed.points[..., 0, 0])
    assert followed.extra == {"person_fields": {str(time): {"1": {"mood": "walks"}} for time in range(6)}}


def test_a_short_absence_keeps_the_number_and_a_long_one_does_not() -> None:
    here, other = (50, 100), (200, 100)
    for away, people in ((8, 2), (15, 3)):  # at 10 fps, with a patience of one second
        frames = [standing(here, other)] * 6 + [standing(other, None)] * away + [standing(other, here)] * 6
        followed = follow(film(frames))
        assert len(followed.poses.people) == people
        assert followed.changes == (() if people == 2 else (6 + away,))


def test_frames_without_anybody_are_listed() -> None:
    poses = film([standing((50, 100)), standing(None), standing((50, 100))])
    assert follow(poses).nobody == (1,)
    assert absent_frames(poses) == (1,)


def test_one_at_a_time_is_one_person_and_a_jump_is_told() -> None:
    followed = follow(film([standing((50, 100))] * 6 + [standing((250, 100))] * 6))
    assert followed.poses.people == (0,)
    assert followed.changes == (6,)
    assert followed.poses.present.all()


def test_who_is_seen_briefly_is_dropped_and_counted() -> None:
    frames = [standing((50, 100), (250, 50) if time in (3, 4) else None) for time in range(12)]
    followed = follow(film(frames))
    assert followed.poses.people == (0,)
    assert followed.dropped == 2


def test_nobody_is_followed_across_the_border_of_a_clip() -> None:
    two = standing((50, 100), (200, 100))
    followed = follow(film([two] * 12, begins=(0, 6)))
    assert len(followed.poses.people) == 4
    assert followed.changes == ()


def test_the_largest_is_largest_over_the_whole_film() -> None:
    frames = [np.concatenate([standing((50, 100)), standing((200, 100), height=60)])] * 10
    frames[0] = np.concatenate([standing((50, 100), height=200), standing((200, 100), height=60)])
    choice = choose(film(frames))
    assert choice.poses.people == (1,)
    assert "2 people: took 1 (largest, in 10 of 10 frames)" in choice.sentence
    assert "--person NUMBER" in choice.sentence


def test_a_person_by_number_or_by_pixel() -> None:
    poses = follow(shuffled()).poses
    assert choose(poses, "1").poses.people == (1,)
    assert choose(poses, "52,90").poses.people == (1,)
    assert choose(poses, "150,90.5").poses.people == (0,)
    assert choose(poses.person(0)).sentence == ""


def test_a_pixel_counts_in_the_first_frame_with_anybody() -> None:
    frames = [standing(None, None)] * 2 + [standing((50, 100), None)] * 3 + [standing((50, 100), (200, 100))] * 9
    assert choose(film(frames), "200,100").poses.people == (0,)


def test_wrong_choices_are_refused() -> None:
    poses = follow(shuffled()).poses
    with pytest.raises(DataError, match="there is no person 7; there are 0, 1"):
        choose(poses, "7")
    with pytest.raises(ConfigError, match="none of: largest"):
        choose(poses, "tallest")


def test_nobody_at_all_is_refused() -> None:
    empty = film([standing(None)] * 3)
    for look in (follow, choose):
        with pytest.raises(DataError, match="no person is in any of the 3 frames"):
            look(empty)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlap between 0 and 1"):
        follow(shuffled(), least_overlap=0)


def test_taking_follows_chooses_and_tells() -> None:
    frames = [*shuffled().points, standing(None, None), *[standing((260, 60), None)] * 6]
    poses, notes = take(film(frames))
    assert poses.points.shape[:2] == (27, 1)
    assert [note.split(" ")[0] for note in notes] == ["somebody", "3", "no"]
    assert "in 1 frame (21)" in notes[0]
    assert "no person in 7 frames (20-26)" in notes
    everybody, notes = take(film(frames), "all")
    assert everybody.people == (0, 1, 2)
    assert notes[1:] == (
        "3 people: 0 in 20 frames (0-19); 1 in 20 frames (0-19); 2 in 6 frames (21-26)",
        "no person in 1 frame (20)",
    )


def test_somebody_seen_from_the_side_is_followed() -> None:
    """A box of 4 by 80 pixels that moves by 6 a frame never touches itself: it counts as half as wide as high."""

    def thin(x: float) -> np.ndarray:
        frame = standing((x, 100), (260, 100), height=80)
        frame[0, :, 0] = x + np.linspace(-2, 2, 18)
        return frame

    followed = follow(film([thin(60 + 6 * time) for time in range(12)]))
    assert (followed.poses.people, followed.changes) == ((0, 1), ())
    assert followed.poses.present.all()


def test_who_was_seen_last_keeps_their_number_before_who_left_at_that_place() -> None:
    """One leaves at x = 100; later the other jumps from 112 to 105.5, which is nearer to the place of the one who left."""
    frames = [standing((100, 100), (112, 100))] * 6 + [standing(None, (112, 100))] * 7 + [standing((105.5, 100), None)] * 6
    followed = follow(film(frames))
    assert followed.poses.people == (0, 1)
    assert followed.poses.present.any(axis=-1).sum(axis=0).tolist() == [6, 19]


def test_a_choice_is_known_by_its_form() -> None:
    assert all(is_choice(who) for who in ("all", "largest", "3", "640,400", "1.5,2"))
    assert not any(is_choice(who) for who in ("each", "larges", "-1", "1,2,3", "1,2,3,4", "nan,1", "", "1,"))


def test_people_with_numbers_are_not_followed_again() -> None:
    poses, notes = take(replace(shuffled(), people=(4, 9), extra=None), "9")
    assert poses.people == (9,)
    assert len(notes) == 1


def test_frames_are_listed_in_ranges() -> None:
    assert frame_list([5]) == "1 frame (5)"
    assert frame_list([1, 2, 3, 7, 9, 10]) == "6 frames (1-3, 7, 9-10)"
    assert frame_list(range(0, 40, 2), most=2) == "20 frames (0, 2, ...)"
