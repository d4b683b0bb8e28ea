"""Filters over time, for poses that are all there (offline): fill gaps, drop outliers, smooth, re-time.

Each works on every point alone, on body, face and hands alike. A missing point never pulls a value, and nothing reaches across
the border of a clip (`Poses.begins`). All keep the length, except `block_mean` and `retimed`.

References:
    Savitzky and Golay, Smoothing and differentiation of data by simplified least squares procedures, 1964. Casiez, Roussel and
    Vogel, 1 Euro Filter, CHI 2012. Chan et al., Everybody Dance Now, ICCV 2019 (median and block mean of its release).
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from kinema.core.errors import ConfigError
from kinema.pose.sequence import Parts, Poses, mark_missing
from kinema.pose.skeleton import trunk

FLIP_SECONDS = 1.0
"""A person who is upside down for longer is believed to be so, however they got there."""
FLIP_RATE = 15.0
"""One over the seconds within which nobody turns over by a right angle."""
Track = Float64[np.ndarray, "_ N 3"]
"""Points of one clip: x, y and confidence; what is missing is (NaN, NaN, 0)."""


def filled_points(before: Poses, after: Poses) -> Bool[np.ndarray, "T P K"]:
    """Return which points of body, face and hands a filter has made up: those of the frames that had none."""
    return ~(before.joined[..., 2] > 0) & (after.joined[..., 2] > 0)


def fill_gaps(poses: Poses, max_gap: int = 5) -> Poses:
    """Lay a straight line across short gaps; a filled point has the lower confidence of both ends.

    `filled_points` says which they are. Before its first and after its last frame a point stays missing.

    Args:
        poses: what has gaps.
        max_gap: missing frames in a row that are still filled.
    """
    _require(max_gap >= 1, f"a gap of {max_gap} frames cannot be filled; give 1 or more")
    return _each_clip(poses, lambda track: _fill(track, max_gap))


def _fill(track: Track, max_gap: int) -> Track:
    time = np.arange(len(track))[:, None]
    present = track[..., 2] > 0
    before = np.maximum.accumulate(np.where(present, time, -1), axis=0)
    after = np.minimum.accumulate(np.where(present, time, len(track))[::-1], axis=0)[::-1]
    short = ~present & (before >= 0) & (after < len(track)) & (after - before - 1 <= max_gap)
    rows, points = np.nonzero(short)
    first, last = track[before[short], points], track[after[short], points]
    part = ((rows - before[short]) / (after[short] - before[short]))[:, None]
    filled = track.copy()
    filled[rows, points, :2] = first[:, :2] + part * (last[:, :2] - first[:, :2])
    filled[rows, points, 2] = np.minimum(first[:, 2], last[:, 2])
    return filled


def drop_outliers(poses: Poses, factor: float = 6.0, longest: int = 5, window: int = 15) -> Poses:
    """Let points become missing that jump away and come back; fill the gaps afterwards.

    A point is suspect when it is further from where it last was than `factor` times its usual step (running median) plus
    1 % of the frame's height per frame. Suspects that go on for more than `longest` frames, or from which the point goes on
    instead of coming back, are a real move and stay.

    Args:
        poses: detected poses.
        factor: how many usual steps are too many; more than 1.
        longest: frames in a row that can be outliers.
        window: frames over which the usual step is found; odd.
    """
    _require(factor > 1, f"a factor of {factor:g} would drop ordinary steps; give more than 1")
    _require(longest >= 1, f"{longest} frames of outliers; give 1 or more")
    _require_odd(window)
    return _each_clip(poses, lambda track: _drop(track, factor, longest, window, poses.height / 100))


def _drop(track: Track, factor: float, longest: int, window: int, floor: float) -> Track:
    steps = np.linalg.norm(np.diff(track[..., :2], axis=0, prepend=track[:1, :, :2] * np.nan), axis=-1)
    usual = _sliding_median(steps, window)
    overall = _median(np.moveaxis(steps, 0, -1))
    limit = factor * np.where(np.isnan(usual), overall, usual) + floor  # NaN, which nothing exceeds, where no step is known
    points = track.shape[1]
    place, seen = np.full((points, 2), np.nan), np.zeros(points, int)
    doubt, doubted = place.copy(), seen.copy()
    run, begin = np.zeros(points, int), np.zeros(points, int)
    bad = np.zeros(track.shape[:2], bool)

    def far_from(other: Float64[np.ndarray, "N 2"], when: Int64[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
        return np.linalg.norm(track[time, :, :2] - other, axis=-1) > limit[time] * (time - when)

    for time in range(len(track)):
        present = track[time, :, 2] > 0
        suspect = present & far_from(place, seen)  # never true for a first sight
        begin = np.where(suspect & (run == 0), time, begin)
        moved = (run > 0) & present & ~suspect & ~far_from(doubt, doubted)
        run = np.where(suspect, run + 1, run)
        moved |= run > longest
        for point in np.nonzero(moved)[0]:
            bad[begin[point] : time, point] = False
        bad[time] = suspect & ~moved
        doubt[bad[time]], doubted[bad[time]] = track[time, bad[time], :2], time
        kept = present & ~bad[time]
        place[kept], seen[kept], run[kept] = track[time, kept, :2], time, 0
    return np.where(bad[..., None], [np.nan, np.nan, 0], track)


def median(poses: Poses, window: int = 7) -> Poses:
    """Return the sliding median over the frames in which a point was found, if it was found in most of the window.

    "Most" is a median confidence above 0; that is the confidence of the result. At a clip's ends the window is cut.

    Args:
        poses: detected poses.
        window: frames, odd.

    References:
        Everybody Dance Now's release, smoothing of the driving poses after normalisation (window 7).
    """
    _require_odd(window)

    def smooth(track: Track) -> Track:
        smoothed = np.stack([_sliding_median(track[..., axis], window) for axis in range(3)], axis=-1)
        smoothed[~(smoothed[..., 2] > 0)] = (np.nan, np.nan, 0)
        return smoothed

    return _each_clip(poses, smooth)


def block_mean(poses: Poses, window: int = 4) -> Poses:
    """Return the mean of every `window` frames: fewer frames, fewer per second; a point is there if it was in all of them.

    Frames at a clip's end that fill no block are left out, and so are clips shorter than a block.

    Args:
        poses: detected poses.
        window: frames per block.
    """
    _require(window >= 1, f"a block of {window} frames; give 1 or more")
    lengths = [len(poses.window(*clip)) // window for clip in clips(poses)]
    begins = np.cumsum([0, *(length for length in lengths if length)])[:-1]
    _require(sum(lengths) > 0, f"no clip has the {window} frames of one block")

    def mean(track: Track) -> Track:
        blocks = track[: len(track) // window * window].reshape(-1, window, *track.shape[1:])
        averaged = blocks.mean(axis=1)
        averaged[(blocks[..., 2] <= 0).any(axis=1)] = (np.nan, np.nan, 0)
        return averaged

    return _each_clip(poses, mean, fps=poses.fps / window, begins=tuple(map(int, begins)))


def exponential(poses: Poses, alpha: float = 0.25) -> Poses:
    """Return the exponential moving average s_t = alpha x_t + (1 - alpha) s_(t-1); it lags, gaps stay gaps.

    Args:
        poses: detected poses.
        alpha: weight of the new frame, above 0 and at most 1.

    References:
        The Pose Knows' release, for viewing (0.25).
    """
    _require(0 < alpha <= 1, f"alpha is {alpha:g}; it must be above 0 and at most 1")

    def smooth(track: Track) -> Track:
        smoothed = track.copy()
        state = np.full_like(track[0, :, :2], np.nan)
        for time, frame in enumerate(track):
            found = np.where(np.isnan(state), frame[:, :2], alpha * frame[:, :2] + (1 - alpha) * state)
            smoothed[time, :, :2] = found
            state = np.where(np.isnan(found), state, found)
        return smoothed

    return _each_clip(poses, smooth)


def savitzky_golay(poses: Poses, window: int = 7, order: int = 2) -> Poses:
    """Return a local polynomial fitted to every run of frames without a gap; fill gaps first.

    A run shorter than the window is fitted with the largest odd window that it has frames for, or kept.

    Args:
        poses: poses with few gaps.
        window: frames, odd.
        order: of the polynomial, below the window.
    """
    _require_odd(window)
    _require(0 <= order < window, f"a polynomial of order {order} wants a window above it, not {window} frames")

    return _each_clip(poses, lambda track: _savitzky_golay(track, window, order))


def _savitzky_golay(track: Track, window: int, order: int) -> Track:
    smoothed = track.copy()
    if len(track) >= window:
        views = np.lib.stride_tricks.sliding_window_view(track[..., :2], window, axis=0)
        middle = views @ _fitted(window, order)[window // 2]  # NaN where the window has a gap
        inner = smoothed[window // 2 : len(track) - window // 2, :, :2]
        inner[:] = np.where(np.isnan(middle), inner, middle)
    firsts, stops, points = _runs(track[..., 2] > 0)
    widths = np.minimum(window, (stops - firsts - 1) // 2 * 2 + 1)
    for width in np.unique(widths[widths > order]):
        weights, these = _fitted(int(width), order), widths == width
        for begin, rows in ((firsts, np.arange(width // 2 + 1)), (stops - width, np.arange(width // 2, width))):
            frames, column = begin[these, None] + np.arange(width), points[these, None]
            smoothed[frames[:, rows], column, :2] = np.einsum("rw,nwc->nrc", weights[rows], track[frames, column, :2])
    return smoothed


def _fitted(width: int, order: int) -> Float64[np.ndarray, "W W"]:
    """Return the matrix that takes `width` values to those of the polynomial fitted to them."""
    powers = np.vander(np.linspace(-1, 1, width) if width > 1 else np.zeros(1), order + 1)
    return powers @ np.linalg.pinv(powers)


def one_euro(poses: Poses, min_cutoff: float = 1.0, beta: float = 30.0, speed_cutoff: float = 1.0) -> Poses:
    """Return a low-pass that opens with speed: smooth at rest, quick in motion; uses only the past.

    Args:
        poses: detected poses.
        min_cutoff: cut-off frequency at rest in Hz; lower is smoother.
        beta: Hz more for a frame height per second, so that it serves frames of every size; higher lags less.
        speed_cutoff: cut-off frequency of the speed in Hz.

    References:
        Casiez, Roussel and Vogel, CHI 2012, Algorithm 1: cutoff = min_cutoff + beta |speed|,
        alpha = 1 / (1 + 1 / (2 pi cutoff dt)).
    """
    _require(min_cutoff > 0 and speed_cutoff > 0, "cut-off frequencies must be above 0 Hz")
    _require(beta >= 0, f"beta is {beta:g}; it must be 0 or more")

    def weight(cutoff: Float64[np.ndarray, "N 2"] | float, step: Float64[np.ndarray, "N 1"]) -> Float64[np.ndarray, "N _"]:
        return 1 / (1 + 1 / (2 * np.pi * cutoff * step))

    def smooth(track: Track) -> Track:
        smoothed = track.copy()
        place = np.full_like(track[0, :, :2], np.nan)
        speed, seen = np.zeros_like(place), np.zeros((len(place), 1))
        for time, frame in enumerate(track):
            now = frame[:, :2]
            step = np.maximum(time - seen, 1) / poses.fps
            mixed = weight(speed_cutoff, step)
            faster = mixed * (now - place) / step + (1 - mixed) * speed
            mixed = weight(min_cutoff + beta / poses.height * np.abs(faster), step)
            found = np.where(np.isnan(place), now, mixed * now + (1 - mixed) * place)
            smoothed[time, :, :2] = found
            speed = np.where(np.isnan(faster), speed, faster)
            place = np.where(np.isnan(found), place, found)
            seen = np.where(frame[:, 2:] > 0, time, seen)
        return smoothed

    return _each_clip(poses, smooth)


def retimed(poses: Poses, fps: float) -> Poses:
    """Return the poses at another rate, on straight lines between the frames; a point is there if it was at both ends.

    There are as many frames as a film shows when it is put on that rate (`kinema.data.media.resample`): the last frame is on
    display for as long as any.

    Args:
        poses: at their own rate.
        fps: frames per second that are wanted.
    """
    _require(0 < fps <= 1000, f"a rate of {fps:g} frames per second; it must be above 0 and at most 1000")
    # Half a millionth of a frame: 25 -> 50 -> 25 frames per second must find the old frames.
    counts = [max(1, math.ceil((stop - first) * fps / poses.fps - 0.25 - 5e-7)) for first, stop in clips(poses) if stop > first]
    lasts = [stop - first - 1 for first, stop in clips(poses) if stop > first]
    times = [np.minimum(np.arange(count) * poses.fps / fps, last) for count, last in zip(counts, lasts, strict=True)]
    begins = np.cumsum([0, *map(len, times[:-1])])
    each = iter(times * sum(getattr(poses, name) is not None for name in Parts))

    def sample(track: Track) -> Track:
        wanted = next(each)
        before = np.floor(wanted + 5e-7).astype(int)
        after = np.minimum(np.ceil(wanted - 5e-7).astype(int), len(track) - 1)
        part = np.where(after > before, wanted - before, 0)[:, None, None]
        sampled = (1 - part) * track[before] + part * track[after]
        sampled[..., 2] = np.minimum(track[before][..., 2], track[after][..., 2])
        return sampled

    return _each_clip(poses, sample, fps=fps, begins=tuple(map(int, begins)))


SMOOTHERS: dict[str, Callable[[Poses, int], Poses]] = {
    "median": median,
    "savgol": savitzky_golay,
    "one-euro": lambda poses, _: one_euro(poses),
    "ema": lambda poses, _: exponential(poses),
}
"""Name -> filter of poses and a window; the last two look at the past alone and have none."""


def drop_flips(poses: Poses) -> Poses:
    """Let people become missing where they are upside down, and got there or back from one frame to the next; see `flips`.

    Args:
        poses: detected poses. Of layouts without shoulders and hips, and of less than 15 frames per second, nothing is dropped.
    """
    gone = flips(poses)
    parts = {
        name: mark_missing(np.where(gone.reshape(*gone.shape, *[1] * (part.ndim - 2)), 0, part))
        for name in Parts
        if (part := getattr(poses, name)) is not None
    }
    return replace(poses, **parts) if gone.any() else poses


def flips(poses: Poses) -> Bool[np.ndarray, "T P"]:
    """Return where people are upside down by mistake: nobody turns over within a frame; a cartwheel takes many.

    Detectors take raised arms for legs and follow somebody upside down. Frames in a row with the hips above the shoulders count
    as such a mistake where the trunk turns by more than 90 degrees within 1/15 second before the first or after the last of
    them, and where they are no longer than `FLIP_SECONDS`. Trunks that are short in the picture (a third of the usual), as of
    somebody who bows towards the camera, have no direction.
    """
    gone = np.zeros(poses.points.shape[:2], bool)
    reach = int(poses.fps / FLIP_RATE + 0.01)  # 29.97 is 30
    ways = trunk(poses.points, poses.skeleton)
    for first, stop in clips(poses) if reach else ():
        way = ways[first:stop]
        length = np.linalg.norm(way, axis=-1)
        short = length < np.maximum(_median(length.T) / 3, poses.height / 50)
        directed = np.where(short[..., None], np.nan, way)
        for begin, end, person in zip(*_runs(way[..., 1] < 0), strict=True):
            before, after = directed[max(0, begin - reach) : begin, person], directed[end : end + reach, person]
            turned = (before @ directed[begin, person] < 0).any() or (after @ directed[end - 1, person] < 0).any()  # not of NaN
            if turned and end - begin <= FLIP_SECONDS * poses.fps:
                gone[first + begin : first + end, person] = True
    return gone


# --- Shared -------------------------------------------------------------------------------------------------------------------


def clips(poses: Poses) -> list[tuple[int, int]]:
    """Return first frame and stop of every clip."""
    return list(zip(poses.begins, (*poses.begins[1:], len(poses)), strict=True))


def _each_clip(poses: Poses, change: Callable[[Track], Track], **fields: float | tuple[int, ...]) -> Poses:
    """Return the poses with every clip of body, face and hands changed on its own."""

    def changed(part: Float32[np.ndarray, "T *points 3"]) -> Float32[np.ndarray, "_ *points 3"]:
        flat = part.reshape(len(part), -1, 3).astype(np.float64)
        tracks = [change(flat[first:stop]) for first, stop in clips(poses) if stop > first]
        whole = np.concatenate(tracks) if tracks else flat
        return mark_missing(whole).reshape(len(whole), *part.shape[1:])

    parts = {name: changed(part) for name in Parts if (part := getattr(poses, name)) is not None}
    return replace(poses, **parts, **fields)


def _sliding_median(values: Float64[np.ndarray, "T N"], window: int) -> Float64[np.ndarray, "T N"]:
    """Return the centred median of what is no NaN; NaN where all is."""
    border = np.full((window // 2, values.shape[1]), np.nan)
    padded = np.concatenate([border, values, border])
    views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)
    # A thousand frames at a time: the windows of a long film, faces and hands included, are gigabytes.
    return np.concatenate([_median(views[first : first + 1000]) for first in range(0, len(values), 1000)])


def _median(values: Float[np.ndarray, "*any W"]) -> Float64[np.ndarray, "*any"]:
    """Return the median along the last axis of what is no NaN; NaN, without a warning, where all is."""
    ordered = np.sort(values, axis=-1)  # NaN comes last
    count = (~np.isnan(ordered)).sum(axis=-1, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    high = np.minimum(high, ordered.shape[-1] - 1)
    middle = np.take_along_axis(ordered, low, axis=-1) + np.take_along_axis(ordered, high, axis=-1)
    return np.where(count > 0, middle / 2, np.nan)[..., 0]


def _runs(
    present: Bool[np.ndarray, "T N"],
) -> tuple[Int64[np.ndarray, "R"], Int64[np.ndarray, "R"], Int64[np.ndarray, "R"]]:
    """Return first frame, stop and point of every run of frames without a gap."""
    edges = np.diff(np.pad(present.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    points, firsts = np.nonzero(edges == 1)
    return firsts, np.nonzero(edges == -1)[1], points


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ConfigError(sentence)


def _require_odd(window: int) -> None:
    _require(window >= 1 and window % 2 == 1, f"a window of {window} frames has no middle; give an odd number such as 7")
