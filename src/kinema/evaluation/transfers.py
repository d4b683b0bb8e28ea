"""People re-enacted from their own poses: how near, on the whole frame, on the body, on the face and on the hands.

Held-out frames of the target have a truth: the system is given their poses and should return them. Beside it stands the
training frame with the nearest pose, pasted. With a detector, the pose that is found in the result is compared with the one
that was asked for, and the same of the true frames, because a detector errs on these too.

References:
    Chan, Ginosar, Zhou and Efros, "Everybody Dance Now", ICCV 2019 (arXiv 1808.07371), evaluation: SSIM and perceptual distance
    on crops; pose distance over joints found in both; missed detections per image. Wilcoxon, "Individual comparisons by ranking
    methods", 1945. Intervals of differences: percentile bootstrap over clips.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch.nn import functional as F

from kinema.evaluation.clips import Clip
from kinema.evaluation.paired import CEILING, Measure, PerceptualMeasure, bootstrapped, interval
from kinema.evaluation.pixels import Planes, planes, psnr, ssim
from kinema.evaluation.regions import FACE_SHARE, HAND_MARGIN, MARGIN, Box, boxes
from kinema.evaluation.report import number
from kinema.pose.skeleton import Skeleton

PASTED = "nearest training frame"
FRAME = "frame"
SEEN = 128  # pixels of a side to which crops are scaled for a perceptual distance
_OF_REGIONS, _APART, _MISSED = "region ", "apart ", "missed "  # how the keys of what is kept begin

OF_PIXELS = (
    Measure("psnr", "dB", True, lambda *pair: psnr(*pair).clamp_max(CEILING)),
    Measure("ssim", "", True, ssim),
)

Crop = Float64[torch.Tensor, "_ _ _ _"]  # planes of unequal sizes
Find = Callable[[Clip], Float32[np.ndarray, "T J 3"]]
"""Clip -> the pose of the one person in every frame, in the layout of the poses that were asked for."""


def protocol(detector: str | None, skeleton: Skeleton) -> dict[str, str]:
    """Return what must be equal before two numbers of crops may stand in one table."""
    hands = f"; hands: box of the points and {HAND_MARGIN:g} of its side" if "hands" in skeleton.parts else ""
    return {
        "regions": f"body: box of the joints and {MARGIN:g} of its side; face: {FACE_SHARE:g} of the frame's height{hands}",
        "baseline": PASTED,
        "detector": detector or "none",
    }


class Reenacted:
    """Numbers about re-enacted clips, as they come.

    Args:
        poses: index of a clip -> the poses that were asked for.
        skeleton: their layout.
        pasted: index of a clip and its poses -> the frames of other training clips with the nearest poses.
        perceptual: measures beside PSNR and SSIM.
        find: a pose detector; None for no pose distance.

    Attributes:
        skeleton: as given.
    """

    def __init__(
        self,
        poses: Callable[[int], Float32[np.ndarray, "T J 3"]],
        skeleton: Skeleton,
        pasted: Callable[[int, Float32[np.ndarray, "T J 3"]], Clip],
        perceptual: Sequence[PerceptualMeasure] = (),
        find: Find | None = None,
    ) -> None:
        self.skeleton = skeleton
        self._poses, self._pasted, self._find = poses, pasted, find
        self._perceptual = perceptual
        self._values: dict[str, list[tuple[float, float]]] = {}
        self._missed: dict[str, list[tuple[float, float, float]]] = {}
        self._apart: dict[str, list[tuple[float, float, float]]] = {}

    def add(self, index: int, truth: Clip, made: Clip) -> None:
        """Measure one clip.

        Args:
            index: of the clip.
            truth: its true frames.
            made: what the system made of their poses.
        """
        asked = self._poses(index)
        versions = (truth, made, self._pasted(index, asked))
        height, width = truth.shape[1:3]
        self._measure(FRAME, versions, [(frame, (0, 0, width, height)) for frame in range(len(truth))])
        seen = [boxes(points, self.skeleton, width, height) for points in asked]
        for name in seen[0]:
            self._measure(name, versions, [(frame, box) for frame, found in enumerate(seen) for box in found[name]])
        if self._find:
            found = [self._find(version) for version in (made, truth, versions[2])]
            for part, piece in self.skeleton.pieces.items():
                errors = [pose_errors(asked[:, piece], one[:, piece]) for one in found]
                apart, missed = zip(*errors, strict=True)
                of = "" if part == "body" else f" of {part}"
                self._apart.setdefault(f"pose distance{of}", []).append(apart)
                self._missed.setdefault(f"missed detections{of}", []).append(missed)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was measured so far, clip by clip."""
        kinds = {_OF_REGIONS: self._values, _APART: self._apart, _MISSED: self._missed}
        return {f"{kind}{key}": np.array(values) for kind, kept in kinds.items() for key, values in kept.items()}

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `arrays` returned."""

        def kept(kind: str) -> dict[str, Any]:
            found = {key.removeprefix(kind): array.tolist() for key, array in arrays.items() if key.startswith(kind)}
            return {key: [tuple(values) for values in rows] for key, rows in found.items()}

        self._values, self._apart, self._missed = kept(_OF_REGIONS), kept(_APART), kept(_MISSED)

    def report(self) -> dict[str, Any]:
        """Return JSON values: scores by region, the detector's findings, and every clip's own numbers for comparisons."""
        measures = {m.name: m for m in (*OF_PIXELS, *(Measure(p.name, "", False, p.between) for p in self._perceptual))}
        regions: dict[str, dict[str, Any]] = {}
        for (region, name), values in ((key.split(" ", 1), values) for key, values in self._values.items()):
            regions.setdefault(region, {})[name] = _score(measures[name], np.array(values))
        clips = {key: _plain([made for made, _ in values]) for key, values in self._values.items()}
        found: dict[str, Any] = {"regions": regions}
        if self._find:
            errors = self._apart | self._missed
            found["poses"] = {name: _three(values) for name, values in errors.items()}
            clips |= {name: _plain([made for made, _, _ in values]) for name, values in errors.items()}
        return {**found, "clips": clips}

    def _measure(self, region: str, versions: Sequence[Clip], places: Sequence[tuple[int, Box]]) -> None:
        """Keep the mean over the places of a region in a clip, each a frame and a box; NaN where there is none."""
        crops = [[_crop(planes(clip[frame : frame + 1]), box) for frame, box in places] for clip in versions]
        for name, values in self._near(crops) if places else ((name, (np.nan, np.nan)) for name in self._names):
            self._values.setdefault(f"{region} {name}", []).append(values)

    @property
    def _names(self) -> list[str]:
        return [measure.name for measure in (*OF_PIXELS, *self._perceptual)]

    def _near(self, crops: Sequence[Sequence[Crop]]) -> Iterator[tuple[str, tuple[float, float]]]:
        """Yield the name of every measure, and how near the made and the pasted crops are to the true ones."""
        true, *others = crops
        for measure in OF_PIXELS:
            scores = [[float(measure.between(*pair)) for pair in zip(true, other, strict=True)] for other in others]
            yield measure.name, (float(np.mean(scores[0])), float(np.mean(scores[1])))
        for network in self._perceptual:
            wanted, *made = (network.describe(_seen(clip)) for clip in crops)
            scores = [float(network.between(wanted, one).mean()) for one in made]
            yield network.name, (scores[0], scores[1])


def pose_errors(asked: Float[np.ndarray, "T J 3"], found: Float[np.ndarray, "T J 3"]) -> tuple[float, float]:
    """Return the mean distance in pixels over the joints that both have, and the asked ones per frame that were not found.

    The distance is NaN where no joint is in both.
    """
    wanted, have = asked[..., 2] > 0, found[..., 2] > 0
    both = wanted & have
    apart = np.linalg.norm(asked[both][:, :2] - found[both][:, :2], axis=-1)
    return float(apart.mean()) if len(apart) else float("nan"), float((wanted & ~have).sum(axis=1).mean())


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of a report card: what, its value, its 95 % interval, and what pasting reaches."""
    lines = []
    for region, scores in found["regions"].items():
        for name, score in scores.items():
            if region == FRAME:
                lines.append(
                    (f"{name}, gain over pasting", f"{score['gain']['value']:+.3g}", _range(score["gain"]), _pasted(score), "")
                )
                continue
            if score["value"] is None:
                lines.append((f"{region}: {name}", "never in view", "", "", ""))
                continue
            unit = f", {score['unit']}" if score["unit"] else ""
            lines.append((f"{region}: {name}{unit}", number(score["value"]), _range(score), _pasted(score), ""))
    for name, score in found.get("poses", {}).items():
        nothing = "none" if not score.get("clips") else "too few clips"
        true = f"true frames {_known(score['of true frames'], nothing)}"
        every = len(found["clips"][name])  # a distance is known only where a detector finds something in all three
        counted = name if score.get("clips", every) == every else f"{name}, in {score['clips']} of {every} clips"
        pasted = f"pasted {_known(score[PASTED], nothing)}"
        lines.append((counted, _known(score["value"], nothing), _range(score), true, pasted))
    return lines


def compared(clips: Mapping[str, Mapping[str, Sequence[float | None]]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and lines of a table of differences, clip by clip, from the first report.

    A cell holds the mean difference, its 95 % bootstrap interval over clips, and Wilcoxon's p. Clips of one film resemble each
    other, so that the interval is a little too narrow.

    Args:
        clips: report -> measure -> a number per clip, of the same clips in the same order.
    """
    (first, reference), *others = clips.items()
    lines: list[tuple[str, ...]] = []
    for key, values in reference.items():
        cells = []
        for _, other in others:
            found = difference(values, other[key])
            cells.append("none" if found is None else f"{found[0]:+.3g} ({found[1]:+.3g} to {found[2]:+.3g}), p {found[3]:.2g}")
        lines.append((key, *cells))
    return [f"against {first}", *(name for name, _ in others)], lines


def difference(one: Sequence[float | None], other: Sequence[float | None]) -> tuple[float, float, float, float] | None:
    """Return the mean of other - one over the clips that both have, its 95 % interval, and p of Wilcoxon's signed-rank test.

    None where fewer than two clips have both.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return None
    apart = np.array([b - a for a, b in pairs])
    if np.ptp(apart) == 0 and apart[0] == 0:  # nothing to rank
        return 0.0, 0.0, 0.0, 1.0
    return *bootstrapped(apart), _wilcoxon(apart)


def _wilcoxon(apart: Float64[np.ndarray, "N"]) -> float:
    from scipy.stats import wilcoxon

    result: Any = wilcoxon(apart)
    return float(result.pvalue)


def _crop(frame: Planes, box: Box) -> Crop:
    left, top, right, bottom = box
    return frame[:, :, top:bottom, left:right]


def _seen(crops: Sequence[Crop]) -> Float64[torch.Tensor, "N C h w"]:
    """Scale crops to one size, as a network sees them."""
    scaled = [F.interpolate(crop, size=(SEEN, SEEN), mode="bilinear", antialias=True, align_corners=False) for crop in crops]
    return torch.cat(scaled).clamp(0, 255)


def _score(measure: Measure, values: Float64[np.ndarray, "N 2"]) -> dict[str, Any]:
    """Return what a card says of one measure of one region; clips that never show it do not count."""
    there = values[np.isfinite(values).all(axis=1)]
    about = {"unit": measure.unit, "better": "higher" if measure.higher_is_better else "lower", "clips": len(there)}
    if len(there) < 2:
        return {**about, "value": None}
    sign = 1 if measure.higher_is_better else -1
    gain = interval(sign * (there[:, 0] - there[:, 1]))
    return {
        **about,
        **dict(zip(("value", "low", "high"), interval(there[:, 0]), strict=True)),
        PASTED: float(there[:, 1].mean()),
        "gain": dict(zip(("value", "low", "high"), gain, strict=True)),
    }


def _three(values: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Return the mean of the made clips with its interval, of the true ones and of the pasted ones."""
    table = np.array(values)
    known = table[np.isfinite(table).all(axis=1)]
    if len(known) < 2:
        return {"clips": len(known), "value": None, "of true frames": None, PASTED: None}
    return {
        "clips": len(known),
        **dict(zip(("value", "low", "high"), interval(known[:, 0]), strict=True)),
        "of true frames": float(known[:, 1].mean()),
        PASTED: float(known[:, 2].mean()),
    }


def _plain(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def _known(value: float | None, nothing: str) -> str:
    return nothing if value is None else number(value)


def _pasted(score: Mapping[str, Any]) -> str:
    return f"pasted {number(score[PASTED])}"


def _range(score: Mapping[str, Any]) -> str:
    return f"{number(score['low'])} to {number(score['high'])}" if "low" in score else ""
