"""ACD, average content distance: does a clip show one and the same thing from its first frame to its last?

Each frame has a content vector; the distance of a clip is the mean over all pairs of its frames of the Euclidean distance of
their vectors, and ACD the mean over clips. Two rulers, each named with the number:

- ``acd[shape colour]``, for Shape Motion: the mean colour of the shape, in levels of 0 to 255. Real clips score exactly 0.
- ``acd[NETWORK]``: the pooled features of the frame. Real clips score more than 0, so that theirs stands beside it.

ACD alone can be won by drawing the same grey blob for ever. So beside it stand: frames that have content at all, how much clips
differ from each other, and what the same frames score when they are mixed across clips.

References:
    Tulyakov, Liu, Yang and Kautz, "MoCoGAN: Decomposing Motion and Content for Video Generation", CVPR 2018, Section 4. The
    paper prints neither the scale of the colours nor what belongs to a shape; threshold and choice of frames are a choice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from kinema.core.imagenet import image_network
from kinema.evaluation.clips import Clip
from kinema.evaluation.network import exact_convolutions
from kinema.evaluation.perceptual import as_seen
from kinema.evaluation.pixels import planes

SHAPE_LEVEL = 30  # a pixel belongs to the shape where its greatest channel lies above
FRAMES = 16  # of a clip that are looked at, evenly: every second of 32, as for VGAN in the paper
AT_ONCE = 8
DOUBTFUL = 0.5  # of real clips: below this share of frames with content, or of spread, ACD says nothing

Vectors = Float64[np.ndarray, "T D"]
Numbers = Float64[np.ndarray, "N"]


@runtime_checkable
class ContentRuler(Protocol):
    """Tells what frames show."""

    @property
    def name(self) -> str:
        """What stands in the brackets of ACD."""
        ...

    def __call__(self, clip: UInt8[np.ndarray, "T H W 3"]) -> tuple[Float64[np.ndarray, "T D"], Bool[np.ndarray, "T"]]:
        """Return a vector per frame, and which frames have content; the others' vectors mean nothing."""
        ...


class ShapeColour:
    """Mean colour of the pixels that are brighter than the black that shapes move on."""

    name = "shape colour"

    def __call__(self, clip: UInt8[np.ndarray, "T H W 3"]) -> tuple[Float64[np.ndarray, "T D"], Bool[np.ndarray, "T"]]:
        """Return the mean colour per frame, and which frames have a shape."""
        inside = shape_pixels(clip)
        area = inside.sum(axis=(1, 2))
        # Sums of integers are exact, and so is the mean of equal ones: clips of one colour score 0, not almost 0.
        total = np.where(inside[..., None], clip, 0).sum(axis=(1, 2), dtype=np.int64)
        return total / np.maximum(area, 1)[:, None], area > 0


class ImageContent:
    """Pooled features of EfficientNet-Lite0, ImageNet's weights, of every frame: 1,280 numbers.

    Args:
        device: where to compute.

    Raises:
        ConfigError: the ``features`` extra is not installed.
        DataError: the packaged weights are not the expected ones.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network = image_network().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, clip: UInt8[np.ndarray, "T H W 3"]) -> tuple[Float64[np.ndarray, "T D"], Bool[np.ndarray, "T"]]:
        """Return the features per frame; every frame has content."""
        with exact_convolutions():
            pooled = self._network.extract_features(as_seen(planes(clip).to(self._device))).mean(dim=(2, 3))
        return pooled.double().cpu().numpy(), np.ones(len(clip), bool)


@dataclass(frozen=True)
class Content:
    """What was found in clips, one row each.

    Attributes:
        distance: mean distance between the vectors of two frames; nan with fewer than two frames that have content.
        present: share of frames with content.
        mean: mean vector of the frames with content; nan without any.
        sample: vector of one of them, drawn at random; nan without any.
        path: how far the middle of the shape moves from frame to frame, in all, in pixels; nan for other rulers.
    """

    distance: Numbers
    present: Numbers
    mean: Float64[np.ndarray, "N D"]
    sample: Float64[np.ndarray, "N D"]
    path: Numbers

    @property
    def acd(self) -> float | None:
        """Mean over clips with two frames of content or more; None where there is no such clip."""
        return _mean(self.distance)

    @property
    def spread(self) -> float | None:
        """Root of the mean squared distance of the clips' mean vectors from their centre."""
        known = self.mean[~np.isnan(self.mean[:, 0])]
        return float(np.sqrt(np.square(known - known.mean(axis=0)).sum(axis=1).mean())) if len(known) else None

    @property
    def shuffled(self) -> float | None:
        """ACD of frames that are mixed across clips: the mean distance between frames of different clips."""
        known = self.sample[~np.isnan(self.sample[:, 0])]
        return mean_pairwise(known) if len(known) > 1 else None


def shape_pixels(clip: UInt8[np.ndarray, "T H W 3"]) -> Bool[np.ndarray, "T H W"]:
    """Tell which pixels belong to the shape."""
    return clip.max(axis=3) > SHAPE_LEVEL


def chosen_frames(frames: int) -> slice:
    """Return which frames of a clip are looked at."""
    return slice(None, None, max(1, frames // FRAMES))


def mean_pairwise(vectors: Vectors) -> float:
    """Return the mean Euclidean distance over all pairs of two rows or more."""
    from scipy.spatial.distance import pdist  # imports much

    return float(pdist(vectors).mean())


def look(clip: Clip, ruler: ContentRuler, rng: np.random.Generator) -> dict[str, Any]:
    """Return the row of `Content` of one clip."""
    frames = clip[chosen_frames(len(clip))]
    vectors, present = ruler(frames)
    known, nothing = vectors[present], np.full(vectors.shape[1], np.nan)
    return {
        "distance": mean_pairwise(known) if len(known) > 1 else np.nan,
        "present": present.mean(),
        "mean": known.mean(axis=0) if len(known) else nothing,
        "sample": known[rng.integers(len(known))] if len(known) else nothing,
        "path": path_length(frames) if isinstance(ruler, ShapeColour) else np.nan,
    }


def path_length(frames: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Return how far the middle of the shape moves over the frames that have one, in pixels; nan with fewer than two."""
    middles = np.array([np.argwhere(inside).mean(axis=0) for inside in shape_pixels(frames) if inside.any()])
    return float(np.linalg.norm(np.diff(middles, axis=0), axis=1).sum()) if len(middles) > 1 else float("nan")


def look_at_all(
    read: Callable[[Sequence[int]], list[Clip]],
    indices: Sequence[int],
    ruler: ContentRuler,
    seed: int,
    said: Callable[[int], None] = lambda done: None,
) -> Content:
    """Look at clips in portions.

    Args:
        read: index -> clip.
        indices: of the clips, at least one.
        ruler: tells what frames show.
        seed: of the frames that are drawn for the control.
        said: called with the number of clips that are done.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for start in range(0, len(indices), AT_ONCE):
            portion = indices[start : start + AT_ONCE]
            for number, clip in enumerate(read(portion), start):
                yield look(clip, ruler, np.random.default_rng([seed, number]))
            said(start + len(portion))

    found = list(rows())
    return Content(**{name: np.array([row[name] for row in found], np.float64) for name in found[0]})


def summarise(judged: Content, real: Content, ruler: ContentRuler) -> dict[str, Any]:
    """Return the lines of a report card, each beside what real clips have."""
    described: dict[str, Any] = {"name": f"acd[{ruler.name}]", "unit": "levels" if isinstance(ruler, ShapeColour) else ""}
    for words, content in (("", judged), (" of real clips", real)):
        described |= {
            f"acd{words}": content.acd,
            f"frames with content{words}": float(content.present.mean()),
            f"clips left out{words}": int(np.isnan(content.distance).sum()),
            f"spread across clips{words}": content.spread,
            f"frames mixed across clips{words}": content.shuffled,
        }
        if isinstance(ruler, ShapeColour):
            described[f"path length{words}"] = _mean(content.path)
    known = judged.distance[~np.isnan(judged.distance)]
    if len(known) > 1:
        half = 1.96 * float(known.std(ddof=1)) / len(known) ** 0.5
        described |= {"low": float(known.mean()) - half, "high": float(known.mean()) + half}
    return described


def doubts(described: dict[str, Any]) -> list[str]:
    """Say in words when a low ACD means nothing."""
    name, said = described["name"], []
    if described["acd"] is None:
        return [f"No judged clip has two frames with content: there is no {name}."]
    if described["frames with content"] < DOUBTFUL * described["frames with content of real clips"]:
        said.append(
            f"Only {described['frames with content']:.0%} of the judged frames have content, and {name} looks at those alone: "
            "a low one says little."
        )
    spread, usual = described["spread across clips"], described["spread across clips of real clips"]
    if spread is not None and usual is not None and spread < DOUBTFUL * usual:
        said.append(
            f"Content differs from clip to clip by {spread / usual:.0%} of what it does in real clips: {name} can be won by "
            "showing the same for ever."
        )
    return said


def _mean(values: Numbers) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
