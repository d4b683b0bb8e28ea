"""What a run would take, against numbers worked out by hand and against a trainer that takes it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from averager import Averager, AveragerConfig
from kinema.core.system import Objective, Player, adam, muon
from kinema.core.types import Batch
from kinema.systems.vgan import VGAN
from kinema.training import TrainConfig, Trainer
from kinema.training.estimate import nbytes, state_of, turns_of


def clips(rows: int) -> Batch:
    return Batch(torch.rand(rows, 3, 4, 16, 16) * 2 - 1)


def test_flops_and_activations_of_convolutions_are_those_worked_out_by_hand() -> None:
    """64 cells; a multiplication and an addition per weight and cell forward, again for the weights' gradient, and for the
    second layer again for that of its input. Kept, in fp32: the inputs of both layers, of the activation and of the square.
    """
    system = Averager(AveragerConfig(width=8))
    latent = torch.rand(1, 3, 4, 4, 4)
    _, (denoiser,) = (stage for stage in system.stages().values() if isinstance(stage, tuple))
    turn = turns_of(system, (denoiser,), replace(clips(1), latent=latent), bf16=False)["denoiser"]
    own = 64 * 3 * 3 * 16  # the objective encodes the clip too, for its metric
    first, second = 64 * 3 * 8 * 27, 64 * 8 * 3
    assert turn.flops.at(0) == 0
    assert turn.flops.per_clip == 2 * (own + 2 * first + 3 * second)
    assert turn.activations.per_clip == 4 * 64 * (3 + 8 + 8 + 3)
    assert turn.activations.at(5) == 5 * turn.activations.per_clip


class Attentive(Averager):
    """Its second stage is attention among 64 tokens of 32 numbers."""

    def __init__(self) -> None:
        super().__init__(AveragerConfig())
        self.denoiser = nn.Linear(32, 32)

    def denoising(self, batch: Batch) -> Objective:
        tokens = self.denoiser(torch.ones(len(batch), 64, 32))[:, None]
        return Objective({"mean": nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean()})


def test_attention_is_counted_on_a_processor() -> None:
    """torch's own counter leaves it out: two products of 64 x 64 x 32 forward, five backward."""
    system = Attentive()
    _, players = system.stages().values()
    turn = turns_of(system, players, clips(1), bf16=False)["denoiser"]  # type: ignore[arg-type]
    linear = 2 * 2 * 64 * 32 * 32
    assert turn.flops.per_clip == linear + 7 * 2 * 64 * 64 * 32


class Recurrent(Attentive):
    """Its second stage is an LSTM of 16 numbers that sees 32 numbers in each of 5 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = nn.LSTM(32, 16, batch_first=True)

    def denoising(self, batch: Batch) -> Objective:
        return Objective({"mean": self.denoiser(torch.ones(len(batch), 5, 32, requires_grad=True))[0].mean()})


def test_recurrent_layers_are_counted_on_a_processor() -> None:
    """torch's own counter leaves them out: four gates from inputs and states forward, twice that backward."""
    system = Recurrent()
    _, players = system.stages().values()
    turn = turns_of(system, players, clips(1), bf16=False)["denoiser"]  # type: ignore[arg-type]
    assert turn.flops.per_clip == 3 * 2 * 5 * 4 * 16 * (32 + 16)


@pytest.mark.parametrize("ema_samples", [0.0, 8.0])
def test_optimiser_state_is_what_a_trainer_holds_after_a_step(ema_samples: float) -> None:
    trainer = Trainer(VGAN(VGAN.presets["tiny"].config), "adversarial", TrainConfig(ema_samples=ema_samples))
    shape = trainer.system.clip_shape
    trainer.step(Batch(torch.zeros(4, 3, shape.frames, shape.height, shape.width)))
    states = [value for turn in trainer.turns for optimizer in turn.optimizers
              for state in optimizer.state.values() for value in state.values()]  # fmt: skip
    fresh = VGAN(VGAN.presets["tiny"].config)
    players = fresh.stages()["adversarial"]
    assert sum(state_of(player, list(player.moves[0].parameters())) for player in players) == nbytes(states)  # type: ignore


@pytest.mark.parametrize(("optimizer", "numbers"), [(lambda matrix: adam(1e-3), 2), (lambda matrix: muon(1e-3, [matrix]), 1)])
def test_muon_keeps_one_number_per_weight_and_adam_two(optimizer: Callable[[Tensor], Any], numbers: int) -> None:
    matrix = nn.Linear(40, 40, bias=False)
    player = Player("one", (matrix,), lambda batch: Objective({}), optimizer(matrix.weight))
    assert 0 <= state_of(player, list(matrix.parameters())) - 4 * numbers * 1600 <= 8  # Adam counts its steps


def test_what_a_system_does_now_and_then_counts_as_in_its_first_step() -> None:
    """VGAN's penalty on gradients is due in the first step, and not in the second: both measurements are of the first."""
    system = VGAN(replace(VGAN.presets["tiny"].config, r1_weight=1.0))
    shape = system.clip_shape
    turns = turns_of(system, system.stages()["adversarial"],  # type: ignore[arg-type]
                     Batch(torch.zeros(1, 3, shape.frames, shape.height, shape.width)), bf16=False)  # fmt: skip
    assert all(turn.flops.per_clip > 0.9 * turn.flops.at(1) > 0 for turn in turns.values())
