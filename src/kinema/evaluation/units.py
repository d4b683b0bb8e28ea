"""What a unit of a convolutional network looks for: its top clips, the region that drives it, its receptive field.

A unit is a channel of a layer. Clips are ranked by its highest activation; where its activation map, brought back to the clip,
passes a threshold is what it looks at. Grey or noisy patches slid over the top clips show how large a part of the clip matters.

References:
    Zhou et al., "Object Detectors Emerge in Deep Scene CNNs", ICLR 2015, Section 3.2: ranking, occluders (11x11 pixels at a
    stride of 3, about 5,000 for an image), discrepancy maps centred on the unit's peak and averaged. Vondrick et al.,
    "Generating Videos with Scene Dynamics", NIPS 2016, Section 3.4 and Figure 6. The threshold at a quantile follows Bau et
    al., "Network Dissection", CVPR 2017. Patches in time are a choice, as are all sizes.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor, nn

from kinema.core.errors import EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.core.shape import ClipShape
from kinema.evaluation.clips import Clip
from kinema.evaluation.layers import Layer
from kinema.evaluation.unfinished import Unfinished

AT_ONCE = 8  # clips, or voxels of as many clips, that a network sees at a time
PATCH_SHARE = 12  # the smallest patch is a twelfth along every axis of the box that a unit may see
USUAL_OCCLUSIONS, USUAL_WORK = 512, 64  # patches slid over a clip, and what that may cost, in passes of whole clips
FEWEST_OCCLUSIONS = 27  # three patches along every axis
DRAWS = 200  # random rankings behind what chance gives
SETTLING = 32, 4  # batches and their clips that an untrained network sees, until its normalisations have settled
SAVE_SECONDS = 10.0  # between two savings of what a layer's units answered to the clips so far
CONSTANT = 1e-6  # of the layer's range: a unit that varies less is dead

Occluder = Literal["grey", "noise"]
Read = Callable[[Sequence[int]], list[Clip]]
Said = Callable[[str, int, int], None]
Numbers = Float32[np.ndarray, "_"]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        units: which; None takes the most selective `shown`.
        shown: how many.
        top: clips of a unit.
        share: of a unit's activations over all positions of all clips that lie above its threshold.
        occlusions: patches slid over a top clip at most; 0 for none.
        occluded: top clips of a unit that patches are slid over.
        occluder: what is in a patch: grey, or noise that is new in every patch.
        seed: of the noise and of what chance gives.
    """

    units: tuple[int, ...] | None = None
    shown: int = 12
    top: int = 6
    share: float = 0.005
    occlusions: int = USUAL_OCCLUSIONS
    occluded: int = 3
    occluder: Occluder = "grey"
    seed: int = 0


@dataclass(frozen=True)
class Activity:
    """How the units of a layer answer to clips.

    Attributes:
        highest: a unit's highest activation in a clip.
        place: the position of its map where that is, counted through the flattened map.
        lowest: a unit's lowest activation.
        threshold: the activation that a given share of all positions of all clips reaches.
    """

    highest: Float32[np.ndarray, "N C"]
    place: Int[np.ndarray, "N C"]
    lowest: Float32[np.ndarray, "C"]
    threshold: Float32[np.ndarray, "C"]

    @property
    def dead(self) -> Bool[np.ndarray, "C"]:
        """Units whose activation never changes."""
        span = self.highest.max(axis=0) - self.lowest
        return span <= CONSTANT * max(float(span.max()), 1e-30)

    @property
    def silent(self) -> Bool[np.ndarray, "C"]:
        """Units that change but are never above zero."""
        return ~self.dead & (self.highest.max(axis=0) <= 0)


@dataclass(frozen=True)
class Field:
    """An estimated receptive field.

    Attributes:
        change: mean change of the activation where a patch lies, in the box that the layer's kernels allow, centred.
        extent: where it is at least half of its peak, along every axis.
        patch: extent of the patches along every axis; nothing finer can be seen.
        clips: how many it is averaged over.
    """

    change: Float32[np.ndarray, "..."]
    extent: tuple[int, ...]
    patch: tuple[int, ...]
    clips: int


@dataclass(frozen=True)
class UnitView:
    """What is shown of a unit.

    Attributes:
        unit: its channel.
        clips: numbers of its top clips, among those that were looked at.
        highest: its activation there.
        regions: where in these clips it is at or above its threshold.
        field: its receptive field; None where it was not asked for.
    """

    unit: int
    clips: list[int]
    highest: list[float]
    regions: list[Bool[np.ndarray, "_ H W"]]
    field: Field | None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the unit as arrays."""
        found = {"clips": np.array(self.clips), "highest": np.array(self.highest), "regions": np.stack(self.regions)}
        return found | {f"field {name}": np.array(value) for name, value in (vars(self.field) if self.field else {}).items()}

    @staticmethod
    def of_arrays(unit: int, found: Mapping[str, np.ndarray]) -> "UnitView":
        """Return what `arrays` was asked of."""
        field = None
        if "field change" in found:
            extent, patch = (tuple(found[f"field {name}"].tolist()) for name in ("extent", "patch"))
            field = Field(found["field change"], extent, patch, found["field clips"].item())
        return UnitView(unit, found["clips"].tolist(), found["highest"].tolist(), list(found["regions"]), field)


def measure_activity(
    layer: Layer,
    read: Read,
    indices: Sequence[int],
    share: float,
    said: Said,
    unfinished: Unfinished | None = None,
) -> Activity:
    """Look at clips once and note every unit's peaks; exact, in the memory of the `share` of all activations.

    Args:
        layer: whose units are meant.
        read: index -> clip.
        indices: of the clips.
        share: of activations above the threshold, in (0, 1).
        said: told how many clips are done.
        unfinished: keeps what was noted, now and then and at the end, and has what an earlier call noted.
    """
    limit = max(1, ceil(share * len(indices) * layer.positions))
    noted = {name: torch.from_numpy(array) for name, array in (unfinished.load() if unfinished else {}).items()} or {
        "highest": torch.empty(0, layer.channels),
        "place": torch.empty(0, layer.channels, dtype=torch.int64),
        "lowest": torch.full((layer.channels,), torch.inf),
        "top": torch.empty(layer.channels, 0),
    }
    done, saved = len(noted["highest"]), time.monotonic()
    said("clips", done, len(indices))
    for portion, maps in _maps(layer, read, indices[done:]):
        flat = maps.flatten(2)  # B C positions
        peak = flat.max(dim=2)
        top = torch.cat([noted["top"], flat.transpose(0, 1).flatten(1)], dim=1)
        noted = {
            "highest": torch.cat([noted["highest"], peak.values]),
            "place": torch.cat([noted["place"], peak.indices]),
            "lowest": torch.minimum(noted["lowest"], flat.amin(dim=(0, 2))),
            "top": top.topk(min(limit, top.shape[1]), dim=1).values,
        }
        said("clips", done + portion, len(indices))
        ended = done + portion == len(indices)
        if unfinished and (ended or time.monotonic() - saved >= SAVE_SECONDS):
            last = {"top": noted["top"][:, -1:]} if ended else {}  # of all of them the threshold alone is needed
            unfinished.save({name: values.numpy() for name, values in (noted | last).items()})
            saved = time.monotonic()
    return Activity(noted["highest"].numpy(), noted["place"].numpy(), noted["lowest"].numpy(), noted["top"][:, -1].numpy())


def selectivity(highest: Float32[np.ndarray, "N C"]) -> Float[np.ndarray, "C"]:
    """Return the lifetime sparseness of every unit's highest activations: 0 if all clips are alike to it, 1 if one counts.

    Activations below zero count as zero; a unit without any above it has 0.

    References:
        Vinje and Gallant, Science 2000; Willmore and Tolhurst, Network 2001.
    """
    answers = np.maximum(highest.astype(np.float64), 0)
    square = np.square(answers).mean(axis=0)
    spread = np.square(answers.mean(axis=0)) / np.where(square > 0, square, 1)
    return np.where(square > 0, (1 - spread) / (1 - 1 / max(len(highest), 2)), 0.0)


def top_clips(answers: Float[np.ndarray, "N"], origins: Sequence[Any], count: int) -> list[int]:
    """Return the clips with the highest answers, highest first, at most one per origin; of equal ones the first."""
    chosen: dict[Any, int] = {}
    for clip in np.argsort(-answers, kind="stable").tolist():
        chosen.setdefault(origins[clip], clip)
        if len(chosen) == count:
            break
    return list(chosen.values())


def most_frequent(labels: Sequence[str]) -> tuple[str, float]:
    """Return the most frequent label, of equal ones the first by name, and its share."""
    label, count = min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    return label, count / len(labels)


def chance_share(labels: Sequence[str], origins: Sequence[Any], count: int, seed: int) -> float:
    """Return the mean share of the most frequent label among top clips of units that answer at random."""
    shares = []
    for draw in range(DRAWS):
        answers = numpy_generator(seed, 1, draw).random(len(labels))
        shares.append(most_frequent([labels[clip] for clip in top_clips(answers, origins, count)])[1])
    return float(np.mean(shares))


def look(
    layer: Layer,
    clips: Read,
    activity: Activity,
    origins: Sequence[Any],
    question: Question,
    said: Said,
    unfinished: Callable[[int], Unfinished | None] = lambda unit: None,
) -> list[UnitView]:
    """Find the top clips of the units that are asked for, what they light up in them, and their receptive fields.

    Args:
        layer: whose units are meant.
        clips: reads clips by their number among those of `activity`.
        activity: of the layer.
        origins: the footage that every clip comes from, or whatever else may be shown once only.
        question: which units, and how.
        said: told how many units are done.
        unfinished: unit -> keeps what is shown of it, and has what an earlier call found.
    """
    units = chosen_units(activity, question)
    views = []
    for number, unit in enumerate(units):
        said("units", number, len(units))
        kept = unfinished(unit)
        if kept and (arrays := kept.load()):
            views.append(UnitView.of_arrays(unit, arrays))
            continue
        views.append(look_at(layer, clips, activity, origins, question, unit))
        if kept:
            kept.save(views[-1].arrays())
    said("units", len(units), len(units))
    return views


def look_at(layer: Layer, clips: Read, activity: Activity, origins: Sequence[Any], question: Question, unit: int) -> UnitView:
    """Find what `look` finds, of one unit."""
    top = top_clips(activity.highest[:, unit], origins, question.top)
    shown = clips(top)
    regions = [lit for _, maps in _maps(layer, clips, top) for lit in _lit(layer, maps[:, unit].numpy(), activity, unit, shown)]
    places = [_unravelled(int(activity.place[clip, unit]), layer.map_shape) for clip in top]
    field = None
    if question.occlusions:
        some = list(zip(shown, places, strict=True))[: question.occluded]
        field = receptive_field(layer, unit, some, question)
    return UnitView(unit, top, [float(activity.highest[clip, unit]) for clip in top], regions, field)


def movement(clip: Clip) -> Float[np.ndarray, "T H W"]:
    """Return how much every pixel differs from the frame before, in levels of 0 to 255; of the first frame, from the next."""
    change = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=-1)
    return np.concatenate([change[:1], change]) if len(change) else np.zeros(clip.shape[:3])


def concentration(regions: Sequence[Bool[np.ndarray, "_ H W"]], amounts: Sequence[Float[np.ndarray, "_ H W"]]) -> float | None:
    """Return how many times as much of something lies in lit regions as in these clips on the mean; None where there is none.

    Args:
        regions: of the clips.
        amounts: of whatever is meant, everywhere in the same clips.
    """
    lit = sum(int(region.sum()) for region in regions)
    everywhere = float(np.mean([amount.mean() for amount in amounts]))
    if not lit or everywhere <= 0:
        return None
    return sum(float(amount[region].sum()) for amount, region in zip(amounts, regions, strict=True)) / lit / everywhere


def chosen_units(activity: Activity, question: Question) -> list[int]:
    """Return the units that are asked for, the most selective first; without a wish, none that is dead.

    Raises:
        EvaluationError: for a unit that the layer does not have.
    """
    order = np.argsort(-selectivity(activity.highest), kind="stable").tolist()
    if question.units is None:
        return [unit for unit in order if not activity.dead[unit]][: question.shown]
    refuse_unknown_units(question.units, len(order))
    return [unit for unit in order if unit in question.units]


def refuse_unknown_units(units: Sequence[int], channels: int) -> None:
    """Raise `EvaluationError` for a number that is no unit of a layer with so many channels."""
    if unknown := [unit for unit in units if not 0 <= unit < channels]:
        raise EvaluationError(f"the layer has no unit {unknown[0]}; its units are 0 to {channels - 1}")


def enlarged(layer: Layer, unit_map: Float[np.ndarray, "..."], extents: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Bring a unit's map back to the clip: linear between the centres of what its positions see.

    Centres may lie between two pixels: both have the position's value then, or a peak of one position would be lost. Beyond the
    outermost centres the map goes on unchanged.

    Args:
        layer: that made the map.
        unit_map: of one unit and clip.
        extents: of the clip along the axes of the map.
    """
    field = layer.field
    for axis, (positions, extent) in enumerate(zip(layer.map_shape, extents, strict=True)):
        centres = field.start[axis] + field.stride[axis] * np.arange(positions) + (field.extent[axis] - 1) / 2
        ends = np.stack([centres - 0.5, centres + 0.5], axis=1).ravel()
        weights = np.stack([np.interp(np.arange(extent), ends, one.repeat(2)) for one in np.eye(positions)], axis=1)
        unit_map = np.moveaxis(np.tensordot(weights, unit_map, (1, axis)), 0, axis)
    return unit_map


def receptive_field(layer: Layer, unit: int, tops: Sequence[tuple[Clip, tuple[int, ...]]], question: Question) -> Field:
    """Estimate how large a part of a clip a unit reacts to.

    Args:
        layer: of the unit.
        unit: its channel.
        tops: clips, with the position of the map where the unit is highest.
        question: how many patches, and of what.
    """
    extents = _extents(layer, tops[0][0])
    patch, stride = patches(layer, extents, question.occlusions)
    total, seen = np.zeros(layer.field.extent), np.zeros(layer.field.extent)
    for number, (clip, place) in enumerate(tops):
        noise = numpy_generator(question.seed, 2, unit, number) if question.occluder == "noise" else None
        inside, change = discrepancy(layer, unit, clip, place, patch, stride, noise)
        total[inside] += change
        seen[inside] += 1
    change = total / np.maximum(seen, 1)
    return Field(change.astype(np.float32), half_extent(change), patch, len(tops))


def usual_occlusions(layer: Layer, shape: ClipShape) -> int:
    """Return how many patches are slid over a clip where nobody says: fewer where a position sees much of the clip."""
    extents = (shape.frames, shape.height, shape.width)[-len(layer.map_shape) :]
    seen = prod(min(box, whole) / whole for box, whole in zip(layer.field.extent, extents, strict=True))
    return max(FEWEST_OCCLUSIONS, min(USUAL_OCCLUSIONS, int(USUAL_WORK / seen)))


def patches(layer: Layer, extents: tuple[int, ...], most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest patches, and strides of half of them, with which at most so many cover what a unit may see.

    Args:
        layer: of the unit.
        extents: of the clip along the axes of the map.
        most: patches in a clip.
    """
    boxes = [min(extent, whole) for extent, whole in zip(layer.field.extent, extents, strict=True)]
    scale = 1.0
    while True:
        patch = tuple(max(1, min(2 * box, round(scale * box / PATCH_SHARE))) for box in boxes)
        stride = tuple(max(1, side // 2) for side in patch)
        if prod(len(_starts((0, box), p, s)) for box, p, s in zip(boxes, patch, stride, strict=True)) <= most:
            return patch, stride
        scale *= 1.05


@torch.inference_mode()
def discrepancy(
    layer: Layer,
    unit: int,
    clip: Clip,
    place: Sequence[int],
    patch: Sequence[int],
    stride: Sequence[int],
    noise: np.random.Generator | None,
) -> tuple[tuple[slice, ...], Float[np.ndarray, "..."]]:
    """Return how much a unit's activation at a place changes when a patch covers an element of the clip.

    An element's change is the mean over all patches that cover it. Only what the position can see is covered and computed,
    which gives the same activations as the whole clip would.

    Args:
        layer: of the unit.
        unit: its channel.
        clip: any.
        place: position of its map.
        patch: extents of a patch.
        stride: between patches.
        noise: fills the patches; None makes them grey.

    Returns:
        The part of the box the position could see that lies within the clip, and the changes there.
    """
    device = next(layer.steps.parameters()).device
    view = layer.view(torch.from_numpy(np.array(clip))[None].to(device))
    box, extents = layer.field.box(place), view.shape[2:]
    inside = [(max(low, 0), min(high, extent)) for (low, high), extent in zip(box, extents, strict=True)]
    # Beginning at a multiple of the stride, the crop's map is a part of the clip's.
    begin = [low // step * step for (low, _), step in zip(inside, layer.field.stride, strict=True)]
    crop = view[(..., *(slice(low, high) for low, (_, high) in zip(begin, inside, strict=True)))]
    index = (unit, *(i - low // step for i, low, step in zip(place, begin, layer.field.stride, strict=True)))
    whole = float(layer.steps(crop)[(0, *index)])
    within = [(low - first, high - first) for (low, high), first in zip(inside, begin, strict=True)]
    places = [_starts(part, p, s) for part, p, s in zip(within, patch, stride, strict=True)]
    corners = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, len(box))
    change, covered = np.zeros(crop.shape[2:]), np.zeros(crop.shape[2:])
    for group in np.array_split(corners, max(1, ceil(len(corners) * crop[0].numel() / (AT_ONCE * view[0].numel())))):
        holes = [tuple(slice(max(0, c), c + p) for c, p in zip(corner, patch, strict=True)) for corner in group.tolist()]
        altered = crop.repeat(len(group), *[1] * (crop.dim() - 1))
        for one, hole in zip(altered, holes, strict=True):
            part = one[(slice(None), *hole)]
            part.copy_(torch.from_numpy(noise.uniform(-1, 1, tuple(part.shape))) if noise else torch.zeros(()))
        answers = layer.steps(altered)[(slice(None), *index)].float().cpu().numpy()
        for hole, answer in zip(holes, answers, strict=True):
            change[hole] += abs(float(answer) - whole)
            covered[hole] += 1
    seen = tuple(slice(low, high) for low, high in within)
    place_in_box = tuple(slice(i - low, j - low) for (i, j), (low, _) in zip(inside, box, strict=True))
    return place_in_box, change[seen] / np.maximum(covered[seen], 1)


def half_extent(change: Float[np.ndarray, "..."]) -> tuple[int, ...]:
    """Return along every axis how far it is from the first to the last place with half of the peak; 0 for no change."""
    if change.max() <= 0:
        return (0,) * change.ndim
    marked = np.nonzero(change >= change.max() / 2)
    return tuple(int(axis.max() - axis.min()) + 1 for axis in marked)


@torch.inference_mode()
def settle(layer: Layer, read: Read, indices: Sequence[int], said: Said, unfinished: Unfinished | None = None) -> None:
    """Show clips to an untrained network until its batch statistics and spectral norms are those of the data.

    Args:
        layer: whose network is untrained.
        read: index -> clip.
        indices: of the clips, shown again where they are few.
        said: told how many batches are done.
        unfinished: keeps the network's state, and has that of an earlier call.
    """
    if unfinished and (state := unfinished.load()):
        layer.steps.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        return
    batches, size = SETTLING
    norms = [step for step in layer.steps if isinstance(step, (nn.BatchNorm2d, nn.BatchNorm3d))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches: a moving one still holds a part of where it began
    layer.steps.train()
    for batch in range(batches):
        said("settling", batch, batches)
        some = [indices[(batch * size + clip) % len(indices)] for clip in range(size)]
        layer.steps(layer.view(_stacked(read(some), layer.steps)))
    layer.steps.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if unfinished:
        unfinished.save({name: value.cpu().numpy() for name, value in layer.steps.state_dict().items()})
    said("settling", batches, batches)


def _maps(layer: Layer, read: Read, indices: Sequence[int]) -> Iterator[tuple[int, Float32[Tensor, "B C *positions"]]]:
    """Yield the number of clips that are done and their maps, on the CPU."""
    for start in range(0, len(indices), AT_ONCE):
        portion = indices[start : start + AT_ONCE]
        yield start + len(portion), _answers(layer, _stacked(read(portion), layer.steps))


@torch.inference_mode()
def _answers(layer: Layer, clips: UInt8[Tensor, "B T H W 3"]) -> Float32[Tensor, "B C *positions"]:
    return layer.steps(layer.view(clips)).float().cpu()


def _stacked(clips: Sequence[Clip], network: nn.Module) -> UInt8[Tensor, "B T H W 3"]:
    return torch.from_numpy(np.stack(clips)).to(next(network.parameters()).device)


def _lit(
    layer: Layer, maps: Float32[np.ndarray, "B ..."], activity: Activity, unit: int, clips: Sequence[Clip]
) -> list[Bool[np.ndarray, "_ H W"]]:
    """Return where a unit is at or above its threshold, and above its lowest activation: many units are zero nearly always."""
    threshold, lowest = activity.threshold[unit], activity.lowest[unit]
    regions = []
    for unit_map, clip in zip(maps, clips, strict=True):
        large = enlarged(layer, unit_map, _extents(layer, clip))
        lit = (large >= threshold) & (large > lowest)
        regions.append(lit if layer.moving else lit[None])
    return regions


def _unravelled(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.unravel_index(position, shape))


def _extents(layer: Layer, clip: Clip) -> tuple[int, ...]:
    return tuple(clip.shape[:3] if layer.moving else clip.shape[1:3])


def _starts(part: tuple[int, int], patch: int, stride: int) -> list[int]:
    """Return where patches begin, so that every element of a part is covered by as many; the first ones stick out."""
    return list(range(part[0] + stride - patch, part[1], stride))
