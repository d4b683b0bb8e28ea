"""What makes futures of The Pose Knows differ, and does it pay: the system, without chance, without KL divergence, with more.

``python benchmarks/pose_futures.py [DATA] --steps 1500`` trains the pose half of every variant for the same steps on the same
batches and prints one JSON line: the best-of-n distance of a joint in pixels beside the variants' rivals, and on forked
performers how many of the futures that may follow are among the samples. Without DATA it draws forked performers first.
``--start-from RUN`` begins with the weights of a run on other people, ``--judge DATA`` judges on the held-out clips of another
dataset, such as the same footage with smoothed poses.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from kinema.cli import main as kinema
from kinema.cli.forecast import open_forecaster
from kinema.data.dataset import Dataset
from kinema.data.loader import Loader
from kinema.evaluation.forecast import ForecastQuestion, judge_forecasts
from kinema.systems.pose_knows import PoseKnows
from kinema.training import TrainConfig, Trainer, run_fit, save_checkpoint
from kinema.training.run import summary
from kinema.training.start import take_over

VARIANTS: dict[str, dict[str, Any]] = {
    "laptop": {},
    "without chance": {"latent": "none"},
    "without KL": {"kl_weight": 0.0},
    "KL of the release": {"kl_weight": 0.008},
    "prior of the paper": {"prior": "normal"},
    "imagenet tower": {"tower": "imagenet"},
}
FORKS = (
    *("--fork", "go_on", "turn_back", "kick", "squat", "--fork-odds", "4", "3", "2", "1", "--fork-frame", "16"),
    *("--frames", "31", "--fps", "16", "--split", "0.1"),
)


def trained(
    data: Dataset, changes: dict[str, Any], steps: int, seed: int, file: Path, source: str | None = None
) -> dict[str, float]:
    """Train the pose half of a variant and write its checkpoint; returns the losses, means over the last tenth."""
    torch.manual_seed(seed)
    system = PoseKnows(replace(PoseKnows.presets["laptop"].config, **changes))
    if source:
        print(take_over(system, source).in_words(data.info.fps))
    frames, needs = system.clip_shape.frames, system.needs
    if "spread" in system.stages():
        every = Loader(data, 16, frames=frames, fields=needs).epoch()
        run_fit(system, "spread", (clips.to_batch() for clips in every), TrainConfig())
    config = TrainConfig(batch_size=16, steps=steps, seed=seed, ema_samples=2000, schedule="cosine")
    trainer = Trainer(system, "pose", config)
    last: list[dict[str, float]] = []
    for clips in Loader(data, 16, seed=seed, flip=True, frames=frames, fields=needs):
        last = [*last[-(steps // 10) :], trainer.step(clips.to_batch())]
        if trainer.finished:
            break
    again = Loader(data, 16, seed=seed + 1, frames=frames, fields=needs)
    sampler = trainer.refresh_sampler(clips.to_batch() for clips in islice(again, 4))
    if "codes" in sampler.stages():
        every = Loader(data, 16, frames=frames, fields=needs).epoch()
        run_fit(sampler, "codes", (clips.to_batch() for clips in every), TrainConfig())
    save_checkpoint(file, sampler, stage="pose", steps=steps, dataset=summary(data, None), provenance={})
    return {name: sum(numbers[name] for numbers in last) / len(last) for name in last[-1] if "gradient" not in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="prepared clips with poses; drawn where absent")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--clips", type=int, default=2000, help="forked performers to draw")
    parser.add_argument("--count", type=int, default=128, help="held-out clips that are judged")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--past-steps", type=int, default=PoseKnows.presets["laptop"].config.past_steps)
    parser.add_argument("--start-from", help="run or checkpoint of pose-knows")
    parser.add_argument("--judge", type=Path, help="another dataset whose held-out clips are judged")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.data or Path(folder) / "forks"
        if arguments.data is None:
            kinema(["prepare", "performers", *FORKS, "--clips", str(arguments.clips), "--out", str(place)])
        found = {}
        for name in arguments.variants:
            began, file = time.process_time(), Path(folder) / f"{name.replace(' ', '-')}.safetensors"
            changes = VARIANTS[name] | {"past_steps": arguments.past_steps}
            losses = trained(Dataset(place, "train"), changes, arguments.steps, arguments.seed, file, arguments.start_from)
            held_out = Dataset(arguments.judge or place, "test")
            question = ForecastQuestion(min(arguments.count, len(held_out)), arguments.seed, arguments.samples)
            report = judge_forecasts(open_forecaster(str(file), "cpu"), held_out, question).report
            found[name] = {
                "best of": report["best of"],
                "scores": report["scores"],
                "limbs": report["limbs"],
                "motion": report["motion"],
                "modes": report.get("modes"),
                "losses": {name: round(value, 4) for name, value in losses.items()},
                "processor seconds": round(time.process_time() - began),
            }
            print(json.dumps({"variant": name, **found[name]}), flush=True)


if __name__ == "__main__":
    main()
