"""Run by torchrun: train systems whole and split over two processes, across a resume, and save what came out of each."""

import copy
import sys
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import TrainingError
from kinema.core.system import System
from kinema.core.types import Batch, ClipShape
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.training import TrainConfig, Trainer, distributed
from kinema.training.checkpoint import save_resume
from kinema.training.sharding import flat, is_split, local
from unit.training.toys import Duel, Tower

STEPS, ROWS = 3, 8


def tower() -> System[Any]:
    return Tower()


def transformer() -> System[Any]:
    return LatentVideoDiT(LatentVideoDiT.presets["tiny"].config)


def trainer_of(system: System[Any], stage: str, *, shard: bool) -> Trainer:
    return Trainer(system, stage, TrainConfig(precision="fp32", ema_samples=16.0, clip_gradients=0.5, shard=shard))


def batches(shape: ClipShape) -> list[Batch]:
    """Return this process's share of fixed batches."""
    rows = ROWS // distributed.processes()
    size = (STEPS, ROWS, 3, shape.frames, shape.height, shape.width)
    clips = torch.rand(size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return [Batch(video[distributed.rank() * rows :][:rows]) for video in clips]


def held(trainer: Trainer) -> dict[str, int]:
    """Count what this process holds of the weights that can be split and of their optimiser states, and how many there are."""
    system = trainer.system
    able = {id(p) for module in system.shardable() for p in module.parameters()}
    weights = [p for p in system.parameters() if id(p) in able]
    views = {id(view): p for turn in trainer.turns for p, view in zip(turn.parameters, turn.views, strict=True)}
    states, all_states = 0, 0
    for optimizer in (optimizer for turn in trainer.turns for optimizer in turn.optimizers):
        for mine in flat(optimizer):
            parameter = views.get(id(mine), mine)
            kept = [value for value in optimizer.state[mine].values() if value.dim()] if id(parameter) in able else []
            states += sum(local(value).numel() for value in kept)
            all_states += len(kept) * parameter.numel()
    return {
        "weights": sum(local(weight).numel() for weight in weights),
        "all_weights": sum(weight.numel() for weight in weights),
        "states": states,
        "all_states": all_states,
        "split": sum(is_split(weight) for weight in weights),
        "beside": sum(p.numel() for p in trainer._whole.parameters()) if trainer.needs_all else 0,
        "all": sum(parameter.numel() for parameter in system.parameters()),
    }


def train(make: Any, stage: str, *, shard: bool, begin: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train to the end, from the beginning or from the state before the last step, and return all that must not differ."""
    torch.manual_seed(0)
    trainer = trainer_of(make(), stage, shard=shard)
    if begin:
        trainer.load_state_dict(begin)
    numbers, before = [], begin
    clips = batches(trainer.system.clip_shape)
    for batch in clips[trainer.steps_done :]:
        before = copy.deepcopy(trainer.state_dict())  # it is the very memory of the next step
        numbers.append(trainer.step(batch))
    counted, state = held(trainer), trainer.state_dict()
    del state["seconds"]
    if state["average"]:  # buffers are the sampler's own
        state["average"] = {name: value for name, value in state["average"].items() if "running" not in name}
    sampler = copy.deepcopy(trainer.refresh_sampler(clips).state_dict())
    return {"before": before, "held": counted, "numbers": numbers, "state": state, "sampler": sampler}


def refusal(system: System[Any], stage: str) -> str:
    try:
        trainer_of(system, stage, shard=True)
    except TrainingError as error:
        return str(error)
    return "accepted"


def main(result: Path) -> None:
    with distributed.together(torch.device("cpu")):
        outcomes = {}
        for name, make, stage in (("tower", tower, "build"), ("latent-video-dit", transformer, "transformer")):
            whole, split = train(make, stage, shard=False), train(make, stage, shard=True)
            outcomes[name] = {
                "whole": whole,
                "split": split,
                "whole from split": train(make, stage, shard=False, begin=split["before"]),
                "split from whole": train(make, stage, shard=True, begin=whole["before"]),
            }
        refused = refusal(Duel(), "duel")
        if distributed.is_first():
            save_resume(result, {"outcomes": outcomes, "refused": refused})
        distributed.wait_for_all()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
