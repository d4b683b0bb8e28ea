"""Masks as a person gives them."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.core.errors import DataError
from kinema.data.encode import write_video
from kinema.data.mask_files import beside_mask, feathered, open_mask

BOX = np.zeros((6, 8, 3), np.uint8)
BOX[1:4, 2:6] = 255


def test_a_picture_a_box_and_films_say_the_same(tmp_path: Path) -> None:
    Image.fromarray(BOX).save(tmp_path / "mask.png")
    write_video(tmp_path / "mask.apng", np.stack([BOX, 255 - BOX, BOX]), 12)
    np.save(tmp_path / "track.npy", np.array([[2, 1, 4, 3], [0, 0, 8, 6], [20, 1, 4, 3]]))
    hidden = BOX[..., 0] > 0
    for source in ("2,1,4,3", " 2, 1.2, 3.5 ,2.5", str(tmp_path / "mask.png")):
        mask = open_mask(source, 8, 6)
        assert mask.still
        for known in islice(mask.read(), 5):
            np.testing.assert_array_equal(known, ~hidden)
        np.testing.assert_array_equal(next(open_mask(source, 8, 6, invert=True).read()), hidden)
    film = open_mask(str(tmp_path / "mask.apng"), 8, 6)
    for _ in range(2):  # it may be read again
        np.testing.assert_array_equal(list(film.read()), [~hidden, hidden, ~hidden])
    track = list(open_mask(str(tmp_path / "track.npy"), 8, 6).read())
    np.testing.assert_array_equal(track, [~hidden, np.zeros_like(hidden), np.ones_like(hidden)])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("1,2,-3,4", "1,2,-3,4 is no box"),
        ("1,2,3.4.5,4", "'1,2,3.4.5,4' is no box; write x,y,width,height"),
        ("small.png", "small.png is 4x3 and the clip 8x6; give a mask of the clip's size"),
        ("flat.npy", r"flat.npy holds float64 of shape \(4,\); a track has one row"),
        ("broken.npy", "broken.npy cannot be read as an array of numpy"),
        ("missing.png", "the mask missing.png is no file and no box"),
    ],
)
def test_masks_that_cannot_be(source: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(BOX[:3, :4]).save("small.png")
    np.save("flat.npy", np.zeros(4))
    Path("broken.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=sentence):
        open_mask(source, 8, 6)


@pytest.mark.parametrize(("frames", "masks"), [(2, 5), (5, 2)])
def test_a_mask_of_another_length_is_refused_with_both_lengths(frames: int, masks: int, tmp_path: Path) -> None:
    write_video(tmp_path / "mask.apng", np.stack([BOX, 255 - BOX] * 3)[:masks], 12)
    mask = open_mask(str(tmp_path / "mask.apng"), 8, 6)
    with pytest.raises(DataError, match=f"mask.apng has {masks} frames and clip.mp4 has {frames}; give one mask per frame"):
        list(beside_mask(iter([BOX] * frames), Path("clip.mp4"), mask))


def test_a_feather_lies_inside_and_shows_nothing_hidden() -> None:
    known = np.ones((1, 9), bool)
    known[:, 3:] = False
    image = np.full((1, 9, 3), 100, np.uint8)
    image[~known] = 255  # hidden
    made = np.zeros_like(image)
    assert feathered(image, made, known, 3)[0, :, 0].tolist() == [100, 100, 100, 75, 50, 25, 0, 0, 0]
    assert feathered(image, made, known, 0)[0, :, 0].tolist() == [100, 100, 100, 0, 0, 0, 0, 0, 0]
    nothing, everything = np.zeros_like(known), np.ones_like(known)
    np.testing.assert_array_equal(feathered(image, made, nothing, 3), made)
    np.testing.assert_array_equal(feathered(image, made, everything, 3), image)
