"""Run by torchrun: train a system whole and split over two processes, across a resume, and save what came out of each."""

import copy
import sys
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import TrainingError
from kinema.core.types import Batch
from kinema.training import TrainConfig, Trainer, distributed
from kinema.training.checkpoint import save_resume
from kinema.training.sharding import flat, is_split, local
from unit.training.toys import SHAPE, Duel, Tower

STEPS, ROWS = 3, 8


def trainer_of(*, shard: bool) -> Trainer:
    torch.manual_seed(0)
    return Trainer(Tower(), "build", TrainConfig(precision="fp32", ema_samples=16.0, clip_gradients=0.5, shard=shard))


def batches() -> list[Batch]:
    """Return this process's share of fixed batches."""
    rows = ROWS // distributed.processes()
    shape = (STEPS, ROWS, 3, SHAPE.frames, SHAPE.height, SHAPE.width)
    clips = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return [Batch(video[distributed.rank() * rows :][:rows]) for video in clips]


def outcome(trainer: Trainer, numbers: list[dict[str, float]]) -> dict[str, Any]:
    """Return everything that must not depend on the split."""
    state = trainer.state_dict()
    sampler = trainer.refresh_sampler(batches()).state_dict()
    return {"numbers": numbers, "state": state, "sampler": {name: value.clone() for name, value in sampler.items()}}


def held(trainer: Trainer) -> dict[str, int]:
    """Count the numbers that this process holds, and those that there are, of weights and of optimiser states."""
    parameters = list(trainer.system.parameters())
    optimizers = [optimizer for turn in trainer.turns for optimizer in turn.optimizers]
    states = [v for o in optimizers for p in flat(o) for v in o.state[p].values() if v.dim()]
    return {
        "weights": sum(local(parameter).numel() for parameter in parameters),
        "states": sum(local(value).numel() for value in states),
        "all_weights": sum(parameter.numel() for parameter in parameters),
        "all_states": sum(value.numel() for value in states),
        "whole_weights": sum(p.numel() for p in trainer.sampler.parameters()),
        "unsplit": sum(p.numel() for p in parameters if not is_split(p)),
    }


def train(*, shard: bool, begin: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train to the end, from the beginning or from the state before the last step, and keep that state."""
    trainer = trainer_of(shard=shard)
    if begin:
        trainer.load_state_dict(begin)
    numbers, before = [], begin
    for batch in batches()[trainer.steps_done :]:
        before = copy.deepcopy(trainer.state_dict())  # it is the very memory of the next step
        numbers.append(trainer.step(batch))
    after_steps = held(trainer)
    return {"before": before, "held": after_steps, **outcome(trainer, numbers)}


def refused() -> str:
    try:
        Trainer(Duel(), "duel", TrainConfig(shard=True))
    except TrainingError as error:
        return str(error)
    return "accepted"


def main(result: Path) -> None:
    with distributed.together(torch.device("cpu")):
        whole, split = train(shard=False), train(shard=True)
        runs = {
            "whole": whole,
            "split": split,
            "whole from split": train(shard=False, begin=split["before"]),
            "split from whole": train(shard=True, begin=whole["before"]),
        }
        if distributed.is_first():
            save_resume(result, {"runs": runs, "refused": refused()})
        distributed.wait_for_all()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
