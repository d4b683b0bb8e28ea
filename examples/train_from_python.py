"""From nothing to generated clips without the command line: the loop is yours.

python examples/train_from_python.py demo-python --steps 1000
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tyro

from kinema.core.tasks import Generates
from kinema.data.dataset import Dataset
from kinema.data.encode import write_video
from kinema.data.loader import Loader
from kinema.data.performers import PerformersSettings
from kinema.data.prepare import work
from kinema.data.procedural import KINDS, Split, plan_procedural
from kinema.systems import SYSTEMS
from kinema.training import TrainConfig, Trainer, run_fit, save_checkpoint
from kinema.training.sheets import grid, to_pixels


@dataclass(frozen=True)
class Options:
    """Where to, and how much."""

    out: tyro.conf.Positional[Path]
    preset: str = "laptop"
    clips: int = 500
    steps: int = 1000


def main(options: Options) -> None:
    system_class = SYSTEMS["vgan"]
    preset = system_class.presets[options.preset]

    # Footage of your own: kinema.data.prepare.prepare([Path("folder")], options.out / "data", PrepareSettings()).
    people = PerformersSettings(clips=options.clips, frames=preset.config.frames, size=preset.config.size)
    work(options.out / "data", plan_procedural("performers", people, Split()), KINDS["performers"].make)
    dataset = Dataset(options.out / "data", "train")

    training = TrainConfig(steps=options.steps, batch_size=8, ema_samples=2000)
    system, loader = system_class(preset.config), Loader(dataset, training.batch_size)
    if "background" in system.stages():  # the still stream starts from what stands still in the footage
        run_fit(system, "background", (clips.to_batch() for clips in loader.epoch()), training)
    trainer = Trainer(system, "adversarial", training)
    for clips in loader:
        numbers = trainer.step(clips.to_batch())
        if trainer.steps_done % 100 == 0:
            print(trainer.steps_done, {name: round(value, 3) for name, value in numbers.items()})
        if trainer.finished:
            break

    sampler = trainer.refresh_sampler(clips.to_batch() for clips in islice(loader, 8))
    save_checkpoint(options.out / "checkpoint.safetensors", sampler, stage="adversarial", steps=trainer.steps_done)
    if isinstance(sampler, Generates):
        films = sampler.generate(range(9))  # B C T H W in [-1, 1]
        write_video(options.out / "samples.mp4", grid(list(to_pixels(films)), columns=3), dataset.info.fps)


if __name__ == "__main__":
    main(tyro.cli(Options))
