"""What every system promises, on a device that is not the processor: the same numbers."""

import copy
import math

import pytest
import torch

from contract.test_systems import clips, every_ability, every_played_stage, outputs, tiny, trained, trainer_of
from device.pretended_device import pretended_device
from kinema.core.system import Fit
from kinema.systems import SYSTEMS
from kinema.training import TrainConfig, Trainer, run_fit

__all__ = ["trained"]  # a fixture


@pytest.mark.parametrize(("precision", "near"), [pytest.param("fp32", 0.02, marks=pytest.mark.slow), ("bf16", 0.1)])
@every_played_stage
def test_the_first_step_on_another_device_is_that_on_the_processor(name, stage, precision, near):
    def trained_on(device: torch.device) -> tuple[dict[str, float], Trainer]:
        trainer = trainer_of(tiny(name), stage, device, precision=precision)
        return trainer.step(clips(trainer.system)), trainer

    here, _ = trained_on(torch.device("cpu"))
    with pretended_device() as device:
        there, trainer = trained_on(device)
        again = trainer.step(clips(trainer.system, seed=1))
        assert {tensor.device for tensor in trainer.system.state_dict().values()} == {device}
    # What a second player scores comes after the first one's step of Adam, which turns rounding into signs.
    # A clip near to the border counts on either side of it, as rounding decides.
    for number, value in here.items():
        loose = 0.25 if "accuracy" in number and precision == "bf16" else 0.0
        assert there[number] == pytest.approx(value, rel=near, abs=max(near / 20, loose)), number
    assert there.keys() == here.keys()
    assert all(map(math.isfinite, again.values()))


@pytest.mark.parametrize("name", [name for name in SYSTEMS if any(isinstance(s, Fit) for s in tiny(name).stages().values())])
def test_closed_forms_on_another_device_find_the_same(name):
    for stage, fit in tiny(name).stages().items():
        if not isinstance(fit, Fit):
            continue
        system = tiny(name)
        here = run_fit(system, stage, [clips(system, 8, seed) for seed in range(3)], TrainConfig())
        with pretended_device() as device:
            system = tiny(name).to(device)
            there = run_fit(system, stage, [clips(system, 8, seed) for seed in range(3)], TrainConfig(), device)
        assert there == pytest.approx(here, rel=1e-4, abs=1e-6), stage


@every_ability
def test_an_ability_gives_the_same_on_another_device(name, ability, trained):
    here = outputs(trained[name], ability)
    with pretended_device() as device:
        there = outputs(copy.deepcopy(trained[name]).to(device), ability)
        assert {tensor.device for tensor in there} == {device}
        back = [tensor.cpu() for tensor in there]
    for one, other in zip(here, back, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_another_device_casts_as_a_gpu_does():
    with pretended_device() as device, torch.autocast(device.type, torch.bfloat16):
        rows = torch.randn(4, 8, device=device)
        half = torch.nn.Linear(8, 8, device=device)(rows)
        assert (half.dtype, half.softmax(dim=1).dtype, (half + rows).dtype) == (torch.bfloat16, torch.float32, torch.float32)
        with pytest.raises(RuntimeError, match="dtype"):
            torch.lerp(half, rows, 0.5)


def test_what_is_left_on_the_processor_is_noticed():
    with pretended_device() as device, pytest.raises(RuntimeError, match=r"a tensor of \(3,\) was left on the processor"):
        torch.ones(3, device=device) + torch.ones(3)
