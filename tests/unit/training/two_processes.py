"""Run by torchrun: train VGAN and faces, let the first process save what came out, then let the second one fail."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from kinema.core.errors import KinemaError, TrainingError
from kinema.core.types import Batch
from kinema.systems.dance import Dance
from kinema.systems.vgan import VGAN
from kinema.training import TrainConfig, Trainer, distributed
from kinema.training.checkpoint import save_resume

STEPS, ROWS = 3, 8


def train(share: slice) -> tuple[Trainer, list[dict[str, float]]]:
    """Train on rows `share` of fixed clips; batch norm in both networks makes every sample depend on all."""
    config = replace(VGAN.presets["tiny"].config, discriminator_norm="batch", r1_weight=0.0)
    torch.manual_seed(distributed.rank())  # processes start from the first one's weights, whatever their own
    trainer = Trainer(VGAN(config), "adversarial", TrainConfig(precision="fp32", ema_samples=16.0))
    shape = config.frames, config.size, config.size
    video = torch.rand(STEPS, ROWS, 3, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return trainer, [trainer.step(Batch(clips[share])) for clips in video]


def train_faces(share: slice) -> list[dict[str, float]]:
    """Train stage "face" of the dance on rows `share`; the second half of the rows shows no face, then one, then more."""
    torch.manual_seed(0)
    config = replace(Dance.presets["tiny"].config, face_shift=0.25, face_augment=("translation", "cutout"))
    trainer = Trainer(Dance(config), "face", TrainConfig(precision="fp32"))
    generator = torch.Generator().manual_seed(1)
    video = torch.rand(4, 3, config.chain, config.height, config.width, generator=generator) * 2 - 1
    pose = torch.rand(4, config.chain, 18, 3, generator=generator) * torch.tensor([config.width, config.height, 1.0])
    numbers = []
    for hidden in (2, 1, 0):
        seen = pose.clone()
        seen[2 : 2 + hidden, :, :, 2] = 0
        seen[3, 0, :, 2] = 0
        numbers.append(trainer.step(Batch(video[share], pose=seen[share])))
    return numbers


def batch_of_grey(trainer: Trainer) -> Batch:
    shape = trainer.system.clip_shape
    return Batch(torch.zeros(4, 3, shape.frames, shape.height, shape.width))


def main(result: Path) -> None:
    with distributed.together(torch.device("cpu")):
        rank, processes = distributed.rank(), distributed.processes()
        rows = ROWS // processes
        trainer, numbers = train(slice(rank * rows, (rank + 1) * rows))
        faces = train_faces(slice(2 * rank, 2 * rank + 2))
        if distributed.is_first():
            made = {"system": trainer.system.state_dict(), "numbers": numbers, "faces": faces, "processes": processes}
            save_resume(result, made)
            trainer.refresh_sampler([batch_of_grey(trainer)] * 2)  # alone: must not wait for the others
        distributed.wait_for_all()
        if rank == 1:
            raise TrainingError("the second process ran out of clips")
        for _ in range(100):
            time.sleep(0.05)
            distributed.wait_for_all()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KinemaError as error:
        print(f"kinema: {error}", file=sys.stderr)
        sys.exit(2)
