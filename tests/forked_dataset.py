"""A small dataset of forked performers: one past, several futures."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from kinema.core.config import to_mapping
from kinema.data.dataset import DatasetInfo, shard_name, write_info, write_shard
from kinema.data.performers import PerformersSettings, render_clip

FORKED = PerformersSettings(
    clips=24, frames=9, size=16, fps=8.0, fork=("go_on", "turn_back", "squat"), fork_odds=(2.0, 1.0, 1.0), fork_frame=5
)


def write_forked_dataset(folder: Path, settings: PerformersSettings = FORKED, unseen: Collection[int] = ()) -> Path:
    """Write the clips; every second one is of the test split. In the `unseen` ones a detector has found nobody."""
    clips = [render_clip(index, settings) for index in range(settings.clips)]
    clips = [
        replace(clip, record=replace(clip.record, split="test" if index % 2 else "train")) for index, clip in enumerate(clips)
    ]
    for index in unseen:
        clips[index] = replace(clips[index], pose=np.zeros_like(clips[index].pose))
    (folder / "shards").mkdir(parents=True)
    write_shard(folder / shard_name(0), clips)
    info = DatasetInfo(
        frames=settings.frames,
        height=settings.size,
        width=settings.size,
        fps=settings.fps,
        shards=(shard_name(0),),
        kept=len(clips),
        labels=settings.fork,
        skeleton="coco-18",
        settings={"kind": "performers", "split": 0.5} | to_mapping(settings),
    )
    write_info(folder, info)
    return folder
