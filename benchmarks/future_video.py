"""Futures by way of the pose against futures in pixels, on the same held-out clips: the claim of The Pose Knows.

``python benchmarks/future_video.py DATA POSE_RUN PIXEL_RUN [--sheet SHEET.png]`` prints one JSON line. Both get the current
frame, POSE_RUN (pose-knows) the frames and poses before it too, PIXEL_RUN (vgan-future) must make one frame more than the other
forecasts. Measured over the frames that follow: PSNR, SSIM, MS-SSIM and the packaged perceptual distance, best of n futures,
beside the current frame that stays; and the share of the true motion. Two more rows say where POSE_RUN loses: its most likely
future, and what it paints of the true poses.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from kinema.cli.trained import Trained, open_pairing
from kinema.data.dataset import Dataset
from kinema.data.encode import write_image
from kinema.evaluation.paired import PairedQuestion, Pairing, judge_pairs
from kinema.evaluation.perceptual import PackagedPerceptual
from kinema.training.sheets import to_pixels

Clip = UInt8[np.ndarray, "T H W 3"]
SHOWN = 5


def from_now_on(pose_run: str, data: Path) -> Pairing:
    """Return the forecasts of a run, from the current frame on."""
    whole = open_pairing(pose_run, data, "test", "cpu")
    now = whole.past - 1
    return replace(
        whole,
        shape=replace(whole.shape, frames=whole.shape.frames - now),
        past=1,
        truth=lambda indices: [clip[now:] for clip in whole.truth(indices)],
        make=lambda indices, draw: [clip[now:] for clip in whole.make(indices, draw)],
    )


def painted(pose_run: str, data: Path, sampled: Pairing, *, likely: bool) -> Pairing:
    """Return what a run paints of the most likely poses, or of the true ones."""
    trained, held = Trained(pose_run, "forecast", "cpu"), Dataset(data, "test")
    past = trained.system.past_frames

    @torch.inference_mode()
    def make(indices: Sequence[int], draw: int) -> list[Clip]:
        del draw
        video = trained.video(np.stack([held.video(index) for index in indices])[:, :past])
        poses = torch.from_numpy(np.stack([np.array(held.array(index, "pose"), np.float32) for index in indices]))
        if likely:
            poses = torch.cat([poses[:, :past], trained.system.forecast_typical(video, poses[:, :past])], dim=1)
        return list(to_pixels(trained.system.render_poses(video[:, :, -1], poses[:, past - 1 :])))

    return replace(sampled, make=make)


def in_pixels(pixel_run: str, poses: Pairing) -> Pairing:
    """Return what a run makes of the current frames of the same clips."""
    trained = Trained(pixel_run, "predict", "cpu")
    if trained.metadata.clip != poses.shape:
        raise SystemExit(f"{pixel_run} makes clips of {trained.metadata.clip}; {poses.shape} are needed")

    def make(indices: Sequence[int], draw: int) -> list[Clip]:
        return list(trained.predict(np.stack([clip[:1] for clip in poses.truth(indices)]), list(indices)))

    return replace(poses, name=pixel_run, make=make)


def motion(clips: Sequence[Clip]) -> float:
    """Return the mean absolute difference of consecutive frames, in grey levels."""
    return float(np.mean([np.abs(np.diff(clip.astype(np.float32), axis=0)).mean() for clip in clips]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("pose_run")
    parser.add_argument("pixel_run")
    parser.add_argument("--count", type=int, default=64, help="held-out clips")
    parser.add_argument("--futures", type=int, default=8)
    parser.add_argument("--sheet", type=Path, help="PNG: true, then every row, one below the other")
    arguments = parser.parse_args()
    poses = from_now_on(arguments.pose_run, arguments.data)
    rows = {"most likely": True, "true poses": False}
    more = {row: painted(arguments.pose_run, arguments.data, poses, likely=likely) for row, likely in rows.items()}
    pairings = {"pose-knows": poses, **more, "vgan-future": in_pixels(arguments.pixel_run, poses)}
    perceptual = PackagedPerceptual(torch.device("cpu"))
    question = PairedQuestion(min(arguments.count, len(Dataset(arguments.data, "test"))), 0, arguments.futures)
    found = {}
    for name, pairing in pairings.items():
        asked = question if pairing is poses else replace(question, draws=1)
        report = judge_pairs(pairing, asked, [perceptual]).report
        some = list(range(question.count or 0))
        share = motion(pairing.make(some, 0)) / motion(pairing.truth(some))
        found[name] = {"scores": report["scores"], "motion against real": round(share, 3)}
    print(json.dumps(found))
    if arguments.sheet:
        sheet = []
        for index in np.linspace(0, poses.count - 1, SHOWN).astype(int).tolist():
            clips = [poses.truth([index])[0], *(pairing.make([index], 0)[0] for pairing in pairings.values())]
            sheet += [np.concatenate(list(clip[::2]), axis=1) for clip in clips]
        write_image(arguments.sheet, np.concatenate(sheet))


if __name__ == "__main__":
    main()
