import io
import math
import statistics
from dataclasses import astuple

import pytest
import torch
from torch import nn

from kinema.core.errors import ConfigError, TrainingError
from kinema.core.system import Objective, Player
from kinema.core.types import Batch
from kinema.systems.vgan import VGAN
from kinema.training import trainer as module
from kinema.training.trainer import TrainConfig, Trainer, keep_channels_together, memory_order, run_fit
from unit.training.toys import Duel, Lever, clips


def pulls(slopes: list[float], **settings: object) -> list[float]:
    """Weights of the lever after each step; with rate 1, each step subtracts (factor of the schedule) * slope."""
    lever = Lever()
    trainer = Trainer(lever, "pull", TrainConfig(**settings))
    weights = []
    for slope in slopes:
        trainer.step(clips(2, slope))
        weights.append(lever.weight)
    return weights


def moved(weights: list[float]) -> list[float]:
    return [round(before - after, 5) for before, after in zip([0.0, *weights], weights, strict=False)]


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1]),
        ({"schedule": "linear", "steps": 4}, [1, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine", "steps": 4}, [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]),
        ({"schedule": "linear", "steps": 4, "warmup_steps": 2}, [0.5, 1, 1, 0.5]),
    ],
)
def test_learning_rate_follows_the_schedule(settings, factors):
    assert moved(pulls([1.0] * 4, **settings)) == pytest.approx(factors, abs=1e-5)


def test_schedule_follows_the_clock_when_only_minutes_are_given(monkeypatch):
    now = iter(range(0, 1000, 15))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    lever = Lever()
    trainer = Trainer(lever, "pull", TrainConfig(minutes=1.0, schedule="linear"))
    weights = []
    while not trainer.finished:
        trainer.step(clips(1, 1.0))
        weights.append(lever.weight)
    assert moved(weights) == [1.0, 0.75, 0.5, 0.25]  # a step every 15 of 60 seconds
    assert trainer.progress == 1.0


def test_gradients_are_clipped_and_their_norm_is_reported():
    lever = Lever()
    numbers = Trainer(lever, "pull", TrainConfig(clip_gradients=0.5, precision="fp32")).step(clips(2, -0.8))
    assert lever.weight == pytest.approx(0.5, abs=1e-4)
    assert numbers == pytest.approx({"hand/height": 0.0, "hand/slope": -0.8, "hand/gradient_norm": 0.8})


def test_short_gradients_are_left_as_they_are():
    lever = Lever()
    Trainer(lever, "pull", TrainConfig(clip_gradients=0.9, precision="fp32")).step(clips(2, -0.8))
    assert lever.weight == pytest.approx(0.8)


def test_average_has_its_half_life_in_samples_and_starts_quickly():
    lever = Lever()
    trainer = Trainer(lever, "pull", TrainConfig(ema_samples=4))
    average = 0.0
    for step in range(1, 31):
        trainer.step(clips(4, 1.0))
        half_life = min(4, 0.05 * 4 * step)  # the ramp: 5 % of the samples seen
        average += (1 - 0.5 ** (4 / half_life)) * (-step - average)
    assert trainer.sampler is not lever
    assert trainer.sampler.weight == pytest.approx(average, rel=1e-5)
    assert trainer.sampler.weight == pytest.approx(-29, abs=0.01)  # with half the weight at age 0, the mean age is 1


def test_without_average_the_sampler_is_the_system_in_evaluation_mode():
    trainer = Trainer(Duel(), "duel", TrainConfig())
    trainer.step(clips(4))
    assert trainer.refresh_sampler([]) is trainer.system
    assert not trainer.system.training
    trainer.step(clips(4))
    assert trainer.system.training


def test_refreshed_sampler_has_the_statistics_of_its_own_weights():
    torch.manual_seed(0)
    trainer = Trainer(Duel(), "duel", TrainConfig(ema_samples=64, precision="fp32"))
    for _ in range(5):
        trainer.step(clips(4))
    batches = [clips(4) for _ in range(3)]
    sampler = trainer.refresh_sampler(batches)
    features = [sampler.maker[0](batch.video).transpose(0, 1).flatten(1) for batch in batches]
    assert torch.allclose(sampler.maker[1].running_mean, torch.stack([f.mean(1) for f in features]).mean(0), atol=1e-6)
    assert torch.allclose(sampler.maker[1].running_var, torch.stack([f.var(1) for f in features]).mean(0), atol=1e-6)
    assert sampler.maker[1].momentum == 0.1
    assert not any(part.training for part in sampler.modules())
    # What is not averaged is copied: the judge's weights, and the buffer.
    assert torch.equal(sampler.judge[0].weight, trainer.system.judge[0].weight)
    assert int(sampler.turns) == 5
    assert not torch.equal(sampler.maker[0].weight, trainer.system.maker[0].weight)


def test_a_player_moves_its_own_parameters_and_plays_every_so_often():
    duel = Duel()
    trainer = Trainer(duel, "duel", TrainConfig())
    before = {name: value.clone() for name, value in duel.named_parameters()}
    for step, playing in enumerate([{"judge", "maker"}, {"judge"}]):
        numbers = trainer.step(clips(4))
        changed = {name.split(".")[0] for name, value in duel.named_parameters() if not torch.equal(value, before[name])}
        assert changed == playing, step
        assert {name.split("/")[0] for name in numbers} == playing
        before = {name: value.clone() for name, value in duel.named_parameters()}
    assert all(parameter.requires_grad for parameter in duel.parameters())
    assert all(parameter.grad is None for parameter in duel.nobody.parameters())


def test_a_player_without_terms_passes():
    lever = Lever()
    lever.objective = lambda batch: Objective({}, {"slope": batch.video.mean()})
    assert Trainer(lever, "pull", TrainConfig()).step(clips(2, 0.5)) == {"hand/slope": 0.5}
    assert lever.weight == 0


def test_a_player_may_have_several_optimisers():
    duel = Duel()

    def build(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
        matrices = [parameter for parameter in parameters if parameter.dim() > 1]
        vectors = [parameter for parameter in parameters if parameter.dim() == 1]
        return [torch.optim.SGD(matrices, lr=0.1), torch.optim.SGD(vectors, lr=0.0)]

    duel.stages = lambda: {"duel": (Player("judge", (duel.judge,), duel.judge_objective, build),)}
    before = [parameter.clone() for parameter in duel.judge.parameters()]
    Trainer(duel, "duel", TrainConfig()).step(clips(4))
    for old, new in zip(before, duel.judge.parameters(), strict=True):
        assert torch.equal(old, new) == (new.dim() == 1)


def test_bad_numbers_stop_before_they_reach_the_weights():
    lever = Lever()
    trainer = Trainer(lever, "pull", TrainConfig())
    trainer.step(clips(2, 1.0))
    with pytest.raises(TrainingError, match=r"term 'height' of player 'hand' became nan in step 1"):
        trainer.step(clips(2, math.nan))
    assert lever.weight == -1
    lever.objective = lambda batch: Objective({"root": (lever.arm.weight * 0).abs().sqrt().sum()})
    with pytest.raises(TrainingError, match=r"the gradient of player 'hand' became nan in step 0"):
        Trainer(lever, "pull", TrainConfig()).step(clips(2, 1.0))
    assert lever.weight == -1


class Stubborn(torch.autograd.Function):
    """Fails as a gradient penalty does under torch.compile."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, *gradients):
        raise RuntimeError("torch.compile with aot_autograd does not currently support double backward")


def test_objectives_are_compiled_on_request_and_what_cannot_be_is_said(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda objective: compiled.append(objective) or objective)
    duel = Duel()
    Trainer(duel, "duel", TrainConfig(compile=True)).step(clips(4))
    assert compiled == [duel.judge_objective, duel.maker_objective]
    lever = Lever()
    lever.objective = lambda batch: Objective({"penalty": Stubborn.apply(lever.arm.weight).sum()})
    with pytest.raises(TrainingError, match=r"player 'hand' of lever differentiates twice .* train without compile"):
        Trainer(lever, "pull", TrainConfig(compile=True)).step(clips(4))


def losses(trainer: Trainer, steps: range) -> list[dict[str, float]]:
    """Train on the same clips for the same step; draw random numbers in between, as sampling does."""
    numbers = []
    for step in steps:
        torch.manual_seed(step)
        numbers.append(trainer.step(clips(4)))
        torch.manual_seed(1000 + step)
        trainer.refresh_sampler([clips(2)])
    return numbers


def fresh_duel() -> Trainer:
    torch.manual_seed(7)
    return Trainer(Duel(), "duel", TrainConfig(ema_samples=32, schedule="cosine", steps=8))


def test_resuming_is_the_same_as_never_having_stopped():
    whole = fresh_duel()
    expected = losses(whole, range(8))
    first = fresh_duel()
    assert losses(first, range(5)) == expected[:5]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = fresh_duel()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.steps_done == 5
    assert second.samples_done == 20
    assert losses(second, range(5, 8)) == expected[5:]
    for name, value in whole.system.state_dict().items():
        assert torch.equal(value, second.system.state_dict()[name]), name
    for name, value in whole.sampler.state_dict().items():
        assert torch.equal(value, second.sampler.state_dict()[name]), name


def test_state_of_another_game_is_refused():
    state = fresh_duel().state_dict()
    with pytest.raises(TrainingError, match="stage 'duel' with players judge, maker; this is stage 'pull' with players hand"):
        Trainer(Lever(), "pull", TrainConfig()).load_state_dict(state)
    with pytest.raises(TrainingError, match="ema_samples"):
        Trainer(Duel(), "duel", TrainConfig()).load_state_dict(state)


def test_players_that_own_the_wrong_parameters_are_refused():
    lever, stranger, frozen = Lever(), nn.Linear(1, 1), Lever()
    player = lever.stages()["pull"][0]
    frozen.arm.requires_grad_(False)
    for moves, sentence in [
        ((lever.arm, lever), r"'hand' of lever owns 'arm.weight' twice"),
        ((stranger,), r"'hand' moves 'weight', which is no part of lever"),
        ((), r"'hand' of lever owns no parameter that learns"),
    ]:
        wrong = Player("hand", moves, lever.objective, player.optimizer)
        lever.stages = lambda wrong=wrong: {"pull": (wrong,)}
        with pytest.raises(TrainingError, match=sentence):
            Trainer(lever, "pull", TrainConfig())
    with pytest.raises(TrainingError, match="owns no parameter that learns"):
        Trainer(frozen, "pull", TrainConfig())


def test_batches_and_stages_that_do_not_fit_are_refused():
    lever = Lever()
    trainer = Trainer(lever, "pull", TrainConfig())
    with pytest.raises(TrainingError, match="the clips are 2x4x8 and lever is set to 2x4x4"):
        trainer.step(Batch(torch.zeros(1, 3, 2, 4, 8)))
    lever.needs = frozenset({"video", "label"})
    with pytest.raises(TrainingError, match="lever trains on clips with label; this dataset carries only video"):
        trainer.step(Batch(torch.zeros(1, 3, 2, 4, 4)))
    with pytest.raises(TrainingError, match="lever has no stage 'pul'; did you mean 'pull'"):
        Trainer(lever, "pul", TrainConfig())
    with pytest.raises(TrainingError, match="fitted, not played"):
        Trainer(lever, "rest", TrainConfig())
    with pytest.raises(TrainingError, match="played, not fitted"):
        run_fit(lever, "pull", [], TrainConfig())


def test_a_fit_reads_every_batch_once():
    lever = Lever()
    numbers = run_fit(lever, "rest", (clips(1, value) for value in (0.25, 0.5)), TrainConfig())
    assert lever.seen == [0.25, 0.5]
    assert numbers == {"clips": 2.0}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"minutes": -1.0}, "minutes is -1.0; it must be more than 0"),
        ({"minutes": math.nan}, "minutes is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"ema_samples": -1.0}, "ema_samples is -1.0"),
        ({"schedule": "cosine"}, "needs an end; give steps or minutes"),
    ],
)
def test_absurd_settings_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TrainConfig(**settings)


def test_weights_and_clips_are_kept_with_their_channels_together():
    network = nn.ModuleList([nn.Conv3d(3, 4, 2), nn.Conv2d(3, 4, 2), nn.Linear(3, 4)])
    keep_channels_together(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert memory_order(network[0].weight) == (0, 2, 3, 4, 1)
    duel, layouts = Duel(), []
    duel.judge.register_forward_pre_hook(
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))
    )
    Trainer(duel, "duel", TrainConfig()).step(clips(4))
    assert layouts[0] is True


def test_layout_changes_no_result():
    results = []
    for channels_last in (True, False):
        torch.manual_seed(0)
        trainer = Trainer(Duel(), "duel", TrainConfig(channels_last=channels_last, precision="fp32"))
        results.append([trainer.step(clips(4, value))["judge/real"] for value in (0.1, 0.2, 0.3, 0.4)])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_precision_is_that_of_the_networks_alone():
    duel, seen = Duel(), []
    duel.judge.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    Trainer(duel, "duel", TrainConfig(precision="bf16")).step(clips(4))
    Trainer(duel, "duel", TrainConfig(precision="fp32")).step(clips(4))
    assert seen == [torch.bfloat16] * 3 + [torch.float32] * 3
    assert {parameter.dtype for parameter in duel.parameters()} == {torch.float32}


def test_noise_differs_between_seeds_stages_and_from_the_weights():
    draws = []
    for seed in (0, 1):
        torch.manual_seed(0)
        duel = Duel()
        trainer = Trainer(duel, "duel", TrainConfig(seed=seed, precision="fp32"))
        duel.maker.register_forward_pre_hook(lambda _, inputs: draws.append(inputs[0].flatten()[:8]))
        trainer.step(clips(4))
    torch.manual_seed(0)
    draws.append(torch.randn(8))
    pairs = [(a, b) for i, a in enumerate(draws) for b in draws[:i]]
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_in_bf16_resuming_is_the_same_as_never_having_stopped():
    def fresh() -> Trainer:
        torch.manual_seed(7)
        return Trainer(VGAN(VGAN.presets["tiny"].config), "adversarial", TrainConfig(ema_samples=32, precision="bf16"), "cuda")

    def losses(trainer: Trainer, steps: range) -> list[dict[str, float]]:
        shape = (4, 3, *astuple(trainer.system.clip_shape))
        return [trainer.step(Batch(torch.rand(shape, generator=torch.Generator().manual_seed(step)) * 2 - 1)) for step in steps]

    whole, first, second = fresh(), fresh(), fresh()
    expected = losses(whole, range(6))
    assert losses(first, range(3)) == expected[:3]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert losses(second, range(3, 6)) == expected[3:]
    assert statistics.fmean(expected[-1].values()) < 100
