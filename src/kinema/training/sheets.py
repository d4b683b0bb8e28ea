"""Sheets of samples: still contact sheets and moving grids, and what a system can show beside each other."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from kinema.core.system import System
from kinema.core.tasks import Decomposes, Forecasts, Predicts, Reconstructs, Transfers
from kinema.core.types import Batch, Video
from kinema.pose.draw import STYLES, DrawStyle, draw_points
from kinema.pose.skeleton import find_skeleton
from kinema.training.health import Clips, Joints, able, forecast_clips
from kinema.training.runlog import SAMPLES_NAME, RunLog

SHOWN = 16  # clips of a moving grid
SHEET_CLIPS, SHEET_FRAMES = 8, 8  # of a contact sheet
BESIDE = 4  # clips of a comparison
GRID_CELL = 128  # pixels: smaller clips are enlarged to about this in a grid


def to_pixels(video: Video) -> UInt8[np.ndarray, "B T H W 3"]:
    """Turn clips in [-1, 1] into pixels; one channel becomes grey."""
    levels = ((video.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return levels.permute(0, 2, 3, 4, 1).expand(-1, -1, -1, -1, 3).contiguous().numpy()


def comparisons(
    sampler: System[Any], real: Video, poses: Joints | None = None, driving: Batch | None = None
) -> dict[str, dict[str, Clips]]:
    """Return what a system can show beside each other: kind -> name of a column -> clips.

    Args:
        sampler: a system in evaluation mode.
        real: clips to predict from and to reconstruct; the same at every look.
        poses: of these clips, for a system that forecasts from them.
        driving: whole clips with poses, to be re-enacted by a system that transfers.
    """
    kinds: dict[str, dict[str, Clips]] = {}
    if isinstance(sampler, Decomposes) and (streams := able(lambda: sampler.streams(range(BESIDE)))):
        kinds["streams"] = dict(streams)
    if isinstance(sampler, Transfers) and driving is not None and driving.pose is not None:
        kinds["transfers"] = {
            "pose": drawn(driving.pose, sampler.skeleton, sampler.style, sampler.frame_shape),
            "real": driving.video,
            "made": sampler.transfer(driving.pose),
        }
    if not len(real):
        return kinds
    real = real[:BESIDE]
    if isinstance(sampler, Predicts):
        predicted = sampler.predict(real[:, :, : sampler.past_frames], seeds=range(len(real)))
        kinds["predictions"] = {"real": real, "predicted": predicted}
    if isinstance(sampler, Forecasts) and poses is not None:
        kinds["forecasts"] = _forecasts(sampler, real, poses[:BESIDE])
    if isinstance(sampler, Reconstructs):
        kinds["reconstructions"] = {"real": real, "reconstructed": sampler.reconstruct(real)}
    return kinds


def _forecasts(sampler: Forecasts, real: Video, poses: Joints) -> dict[str, Clips]:
    """Return what happened, its skeleton and what the system renders for that, then the skeleton and video of a forecast."""
    now = sampler.past_frames - 1
    true = poses[:, now : now + 1 + sampler.future_frames]
    forecast, rendered = forecast_clips(sampler, real, poses)
    size = (real.shape[3], real.shape[4])
    return {
        "real": real[:, :, now : now + true.shape[1]],
        "real skeleton": drawn(true, sampler.skeleton, STYLES["openpose"], size),
        "rendered from it": sampler.render_poses(real[:, :, now], true),
        "forecast skeleton": drawn(forecast, sampler.skeleton, STYLES["openpose"], size),
        "forecast": rendered,
    }


def drawn(poses: Joints, skeleton: str, style: DrawStyle, size: tuple[int, int]) -> Video:
    """Draw poses.

    Args:
        poses: joints of clips, in pixels.
        skeleton: name of their layout.
        style: how they are drawn.
        size: height and width of the frames in pixels.
    """
    layout, (height, width) = find_skeleton(skeleton), size
    clips = [draw_points(clip, layout, width, height, style) for clip in poses.float().cpu().numpy()]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


def write_sheets(
    log: RunLog, step: int, clips: Clips, compared: Mapping[str, Mapping[str, Clips]], fps: float
) -> dict[str, list[str]]:
    """Write contact sheets and moving grids of samples and comparisons; returns their kinds and columns.

    Args:
        log: of the run.
        step: steps done.
        clips: samples; the first of them are shown.
        compared: of `comparisons`.
        fps: frames per second of the moving grids.
    """
    folder = log.folder / SAMPLES_NAME
    folder.mkdir(exist_ok=True)
    kinds: dict[str, list[str]] = {}
    if len(clips):
        shown = to_pixels(clips[:SHOWN])
        _write_sheet(log, folder / f"{step:06d}", list(shown[:SHEET_CLIPS]), list(shown), math.isqrt(len(shown)), (), step, fps)
        kinds["samples"] = []
    for kind, columns in compared.items():
        length = min(video.shape[2] for video in columns.values())
        pixels = [to_pixels(video[:, :, :length]) for video in columns.values()]
        rows = [clip for row in zip(*pixels, strict=True) for clip in row]
        _write_sheet(log, folder / f"{step:06d}-{kind}", rows, rows, len(columns), list(columns), step, fps)
        kinds[kind] = list(columns)
    return kinds


def _write_sheet(
    log: RunLog,
    path: Path,
    rows: Sequence[UInt8[np.ndarray, "_ _ _ 3"]],
    cells: Sequence[UInt8[np.ndarray, "_ _ _ 3"]],
    columns: int,
    names: Sequence[str],
    step: int,
    fps: float,
) -> None:
    from kinema.data.encode import contact_sheet, write_image, write_video
    from kinema.data.tags import generated_tags

    sheet, kind = contact_sheet(rows, frames=SHEET_FRAMES), path.name.partition("-")[2] or "samples"
    tags = generated_tags(f"{kind} of {log.folder.name} after {step} steps", columns=names)
    write_image(path.with_name(path.name + ".png"), sheet, metadata=tags)
    write_video(path.with_name(path.name + ".mp4"), grid(cells, columns), fps, metadata=tags)
    log.picture(kind, sheet, step)


def grid(clips: Sequence[UInt8[np.ndarray, "T H W 3"]], columns: int, gap: int = 4) -> UInt8[np.ndarray, "T h w 3"]:
    """Lay moving clips out in rows, small ones enlarged; both sides are even, as players of H.264 want.

    Args:
        clips: of one shape.
        columns: clips in a row.
        gap: pixels between clips, even.
    """
    frames, height, width, _ = clips[0].shape
    factor = max(1, round(GRID_CELL / max(height, width)))
    rows, tall, wide = -(-len(clips) // columns), height * factor, width * factor
    size = (rows * (tall + gap) - gap, columns * (wide + gap) - gap)
    canvas = np.full((frames, *(side + side % 2 for side in size), 3), 128, np.uint8)
    for number, clip in enumerate(clips):
        top, left = number // columns * (tall + gap), number % columns * (wide + gap)
        canvas[:, top : top + tall, left : left + wide] = clip.repeat(factor, axis=1).repeat(factor, axis=2)
    return canvas
