"""ACD: by hand, exactly 0 on real Shape Motion clips, the sheet's calibration, and the guards against winning by cheating."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from kinema.data.shapes import ShapesSettings, render_clip
from kinema.evaluation.content import (
    Content,
    ImageContent,
    ShapeColour,
    chosen_frames,
    doubts,
    look,
    look_at_all,
    path_length,
    summarise,
)

SETTINGS = ShapesSettings(clips=200)
RULER = ShapeColour()


def content(clips: Sequence[np.ndarray]) -> Content:
    return look_at_all(lambda indices: [clips[index] for index in indices], range(len(clips)), RULER, seed=0)


@pytest.fixture(scope="module")
def real() -> list[np.ndarray]:
    return [render_clip(index, SETTINGS).video for index in range(80)]


@pytest.fixture(scope="module")
def truth(real: list[np.ndarray]) -> Content:
    return content(real)


def blob(colours: Sequence[tuple[int, int, int]], side: int = 4) -> np.ndarray:
    """A square of these colours that moves a pixel to the right at every frame."""
    clip = np.zeros((len(colours), 16, 20, 3), np.uint8)
    for frame, colour in enumerate(colours):
        clip[frame, 5 : 5 + side, 2 + frame : 2 + frame + side] = colour
    return clip


def test_the_distance_by_hand() -> None:
    """Colours at distances 30, 40 and 50; a frame that is too dark has no shape and is left out."""
    row = look(blob([(60, 60, 60), (90, 60, 60), (30, 30, 30), (60, 100, 60)]), RULER, np.random.default_rng(0))
    assert row["distance"] == pytest.approx((30 + 40 + 50) / 3, abs=1e-12)
    assert row["present"] == 0.75
    assert row["mean"].tolist() == pytest.approx([70, 220 / 3, 60], abs=1e-12)


def test_the_path_by_hand() -> None:
    assert path_length(blob([(60, 60, 60)] * 5)) == 4
    assert np.isnan(path_length(blob([(60, 60, 60), (0, 0, 0)])))


def test_real_clips_score_exactly_nothing(real: list[np.ndarray], truth: Content) -> None:
    dark = [clip.max() <= 30 for clip in real]
    assert np.isnan(truth.distance).tolist() == dark
    assert set(truth.distance[~np.isnan(truth.distance)]) == {0.0}
    assert truth.acd == 0
    assert truth.present.tolist() == [0.0 if hidden else 1.0 for hidden in dark]


def test_a_colour_no_brighter_than_the_ground_is_left_out_and_counted() -> None:
    found = content([blob([(30, 30, 30)] * 4), blob([(31, 30, 30)] * 4)])
    assert np.isnan(found.distance).tolist() == [True, False]
    assert summarise(found, found, RULER)["clips left out"] == 1


def test_the_ruler_is_that_of_the_released_clips(real: list[np.ndarray], truth: Content) -> None:
    """Of 300 released clips, noise of 8 levels scores 3.16 and frames mixed across clips 170; of ours, 3.16 and 167."""
    noise = np.random.default_rng(0)
    noisy = [(clip + noise.normal(0, 8, clip.shape)).clip(0, 255).round().astype(np.uint8) for clip in real[:40]]
    assert content(noisy).acd == pytest.approx(3.16, abs=0.4)
    assert truth.shuffled == pytest.approx(170, rel=0.08)
    assert truth.spread == pytest.approx(3**0.5 * 255 / 12**0.5, rel=0.1)  # three uniform channels


def test_every_second_frame_of_32_and_all_of_16() -> None:
    assert [len(range(frames)[chosen_frames(frames)]) for frames in (8, 16, 24, 32, 64)] == [8, 16, 24, 16, 16]
    assert list(range(32)[chosen_frames(32)])[:3] == [0, 2, 4]


def test_winning_by_cheating_is_said(truth: Content) -> None:
    """The same grey blob for ever scores 0, as real clips do; so does a generator that hardly ever draws a shape."""
    cheat = summarise(content([blob([(128, 128, 128)] * 16)] * 10), truth, RULER)
    assert cheat["acd"] == 0
    assert cheat["spread across clips"] == 0
    assert cheat["frames mixed across clips"] == 0
    assert any("won by showing the same for ever" in said for said in doubts(cheat))
    shy = [blob([(80, 90, 10 * number), (80, 90, 10 * number), *[(0, 0, 0)] * 14]) for number in range(20)]
    assert any("Only 12% of the judged frames have content" in said for said in doubts(summarise(content(shy), truth, RULER)))
    black = summarise(content([blob([(0, 0, 0)] * 4)] * 3), truth, RULER)
    assert black["acd"] is None
    assert "no judged clip has two frames with content" in doubts(black)[0].lower()
    assert doubts(summarise(truth, truth, RULER)) == []


def test_features_of_a_still_clip_do_not_differ() -> None:
    ruler = ImageContent(torch.device("cpu"))
    generator = np.random.default_rng(0)
    still = np.repeat(generator.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8), 3, axis=0)
    other = generator.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = look_at_all(lambda indices: [(still, other)[index] for index in indices], range(2), ruler, seed=0)
    assert found.distance[0] < 1e-4 < 1 < found.distance[1]
    assert found.mean.shape == (2, 1280)
    assert summarise(found, found, ruler)["name"] == "acd[efficientnet-lite0]"
    assert "path length" not in summarise(found, found, ruler)
