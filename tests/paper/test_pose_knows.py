"""Walker et al. 2017: layers, counts, costs and one test per equation, against the release as the specification restates it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.errors import ConfigError, DataError
from kinema.core.types import Batch
from kinema.nn.losses import kl_to_normal
from kinema.nn.regions import draw_steps, shifted
from kinema.pose.draw import STYLES, draw_points
from kinema.pose.skeleton import COCO_18
from kinema.pose.warp import warp_limbs
from kinema.systems.pose_knows import PoseKnows
from kinema.systems.pose_knows_networks import CodeFit, CodePrior, PoseKnowsConfig, Steps, from_directions, to_directions


def parameters(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def multiplications(network: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(*shape, device="meta"))
    return counter.get_total_flops() // 2


@pytest.fixture(scope="module", params=["paper", "code"])
def paper(request: pytest.FixtureRequest) -> PoseKnows:
    """A full-size system without memory or arithmetic: its shapes, counts and costs are exact all the same."""
    with torch.device("meta"):
        return PoseKnows(PoseKnows.presets[request.param].config).eval()


def number(value: Tensor | float) -> float:
    return value.detach().item() if isinstance(value, Tensor) else float(value)


def small(**changes: Any) -> PoseKnows:
    torch.manual_seed(3)
    return PoseKnows(replace(PoseKnows.presets["tiny"].config, **changes))


def batch_for(system: PoseKnows, rows: int = 3, seed: int = 0) -> Batch:
    """Random clips; joints anywhere in the picture, all present."""
    generator = torch.Generator().manual_seed(seed)
    shape = system.clip_shape
    video = torch.rand(rows, 3, shape.frames, shape.height, shape.width, generator=generator) * 2 - 1
    pose = torch.rand(rows, shape.frames, 18, 3, generator=generator) * shape.width
    pose[..., 2] = 1
    return Batch(video, pose=pose)


# --- Counts, shapes and costs -------------------------------------------------------------------------------------------------


def test_counts_of_the_past_encoder(paper: PoseKnows) -> None:
    encoder = paper.encoder
    assert parameters(encoder.tower.convolutions) == 887_968
    assert parameters(encoder.tower.head) == 7_080_960
    assert parameters(encoder.inputs, encoder.pose) == 174_414
    assert parameters(encoder.lstm) == 20_987_904
    assert parameters(encoder) == 29_131_246


def test_counts_of_decoders_and_future_encoder(paper: PoseKnows) -> None:
    assert parameters(paper.past_decoder) == parameters(paper.future_decoder) == 13_084_070
    assert parameters(paper.future_decoder.lstm) == 13_041_664
    assert parameters(paper.future_encoder) == 2_536_278
    assert paper.future_encoder.hidden[0].in_features == 4848 == 1800 + 1000 + 2048
    assert paper.future_decoder.lstm.input_size == 108
    assert [head.out_features for head in paper.future_decoder.heads] == [36, 2]


def test_layers_of_the_image_tower(paper: PoseKnows) -> None:
    features, shapes = torch.zeros(1, 6, 240, 320, device="meta"), []
    kinds = []
    for layer in paper.encoder.tower.convolutions:
        features = layer(features)
        kinds.append(type(layer).__name__)
        if isinstance(layer, (nn.BatchNorm2d, nn.MaxPool2d)):
            shapes.append(tuple(features.shape[1:]))
    sizes = [(32, 60, 80), (32, 29, 39), (128, 29, 39), (128, 14, 19), (192, 14, 19), (192, 14, 19), (128, 14, 19), (128, 6, 9)]
    assert shapes == sizes
    assert kinds[:4] == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]  # the nonlinearity stands before the norm


def test_counts_and_costs_of_the_video_half(paper: PoseKnows) -> None:
    assert parameters(paper.generator) == 28_732_931
    assert parameters(paper.discriminator) == 44_152_194
    assert multiplications(paper.generator, 1, 6, 32, 64, 80) == 2_285_371_392
    assert multiplications(paper.discriminator, 1, 3, 32, 64, 80) == 9_898_639_360


def test_sizes_inside_the_video_half(paper: PoseKnows) -> None:
    with torch.no_grad():
        features, shapes = torch.zeros(1, 3, 32, 64, 80, device="meta"), []
        for block in paper.discriminator.features:
            features = block(features)
            shapes.append(tuple(features.shape[1:]))
        assert shapes == [(128, 16, 32, 40), (256, 8, 16, 20), (512, 4, 8, 10), (1024, 2, 4, 5)]
        assert paper.discriminator.last(features).shape == (1, 2, 1, 1, 1)
        features, down = torch.zeros(1, 6, 32, 64, 80, device="meta"), []
        for block in paper.generator.down:
            features = block(features)
            down.append(tuple(features.shape[1:]))
    assert down == [(32, 16, 32, 40), (64, 8, 16, 20), (128, 4, 8, 10), (256, 2, 4, 5), (256, 1, 1, 1)]
    kinds = [[type(layer).__name__ for layer in block] for block in paper.generator.up]
    assert kinds[:2] == [["ReLU", "TransposedVideos", "BatchNorm3d", "Dropout"]] * 2
    assert kinds[2:] == [["ReLU", "TransposedVideos", "BatchNorm3d"]] * 2 + [["ReLU", "TransposedVideos"]]
    assert [block[1].bias is not None for block in paper.generator.up] == [True] * 5
    assert [layer.eps for layer in paper.discriminator.modules() if isinstance(layer, nn.BatchNorm3d)] == [1e-3] * 3


def test_hyper_parameters(paper: PoseKnows) -> None:
    c = paper.config
    assert (c.kl_weight, c.kl_doubles_at) == (pytest.approx(32 * 2.5e-4), 60_000)
    assert (c.pose_learning_rate, c.learning_rate) == (1e-3, 2e-4)
    assert c.l1_weight == 500
    assert (c.frames_per_step, c.past_steps, c.future_steps) == (6, 2, 5)
    stages = paper.stages()
    assert list(stages) == ["pose", "video"]
    assert [player.name for player in stages["video"]] == ["discriminator", "generator"]
    groups = [player.optimizer([nn.Parameter(torch.zeros(1))]).defaults for stage in stages.values() for player in stage]
    assert [(group["lr"], group["betas"]) for group in groups] == [(1e-3, (0.9, 0.999))] + [(2e-4, (0.5, 0.999))] * 2
    owned = [{id(p) for player in stage for module in player.moves for p in module.parameters()} for stage in stages.values()]
    assert not owned[0] & owned[1]


def test_the_rule_of_lengths(paper: PoseKnows) -> None:
    """Two steps of six frames and the current one, then five steps; the video half: 1 + 30 frames and the last one again."""
    assert (paper.past_frames, paper.future_frames, paper.clip_shape.frames) == (13, 30, 43)
    assert paper.config.video_frames == 32
    laptop = PoseKnows.presets["laptop"].config
    assert (laptop.past_frames, laptop.future_frames, laptop.video_frames) == (16, 15, 16)


def test_weights_start_as_in_the_release() -> None:
    system = small(generator_width=16, discriminator_width=16, discriminator_norm="batch")
    for module in [*system.generator.modules(), *system.discriminator.modules()]:
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) and module.weight.numel() > 5000:
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
            assert float(module.bias.detach().abs().max()) == 0


# --- Velocities ---------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("pose_knows", "1")
def test_directions_and_magnitudes_by_hand_and_back() -> None:
    moves = torch.zeros(1, 1, 18, 2)
    moves[0, 0, :2, 0] = torch.tensor([0.03, 0.04])  # m = 0.05 in x; nothing moves in y
    directions, magnitudes = to_directions(moves)
    assert directions[0, 0, :3].tolist() == pytest.approx([3.0, 4.0, 0.0])
    assert magnitudes[0, 0].tolist() == pytest.approx([(math.exp(0.05) - 1.1) / 0.1, -1.0])
    assert torch.allclose(from_directions(directions, magnitudes), moves, atol=1e-7)
    some = 0.1 * torch.randn(4, 5, 18, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_directions(*to_directions(some)), some, atol=1e-6)


def test_a_magnitude_below_zero_does_not_reverse_motion() -> None:
    """The release clamps at -2, which is a motion of log 0.9 backwards."""
    directions = torch.ones(1, 1, 36)
    assert float(from_directions(directions, torch.full((1, 1, 2), -2.0)).abs().max()) == 0


def test_order_of_the_numbers_of_a_pose() -> None:
    places = torch.arange(36.0).reshape(1, 1, 18, 2)
    features = Steps(places, torch.full((1, 1, 18), 7.0)).features()[0, 0]
    assert features.tolist() == [*range(0, 36, 2), *range(1, 36, 2), *[7.0] * 18]


# --- Objectives ---------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("pose_knows", "3")
def test_kl_divergence_and_its_gradient() -> None:
    mu = torch.tensor([[0.3, -2.0], [1.0, 0.5]], requires_grad=True)
    log_variance = torch.tensor([[0.0, 1.0], [-1.0, 0.2]])
    normal = torch.distributions.Normal(mu, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    divergence = kl_to_normal(mu, log_variance)
    assert number(divergence.detach()) == pytest.approx(number(expected.detach()))
    (2 * divergence).backward()  # of the sum over the batch
    assert torch.allclose(mu.grad, mu.detach())
    assert number(kl_to_normal(torch.zeros(2, 3), torch.zeros(2, 3))) == 0


@pytest.mark.equation("pose_knows", "2")
@pytest.mark.parametrize("displacement", ["directions", "euclidean"])
def test_the_objective_of_the_forecaster(displacement: str) -> None:
    """Its terms, from what the networks themselves returned."""
    system = small(displacement=displacement, kl_weight=0.25, kl_doubles_at=3, fed="truth")
    batch, seen = batch_for(system), {}
    hooks = {"past": system.past_decoder, "future": system.future_decoder, "posterior": system.future_encoder}
    for name, module in hooks.items():
        module.register_forward_hook(lambda _m, inputs, output, name=name: seen.update({name: (inputs, output)}))
    objective = system.pose_objective(batch)
    steps = batch.pose[:, ::2, :, :2] / 16
    velocity = steps[:, 1:] - steps[:, :-1]
    x, y = velocity[..., 0], velocity[..., 1]
    if displacement == "directions":
        norms = torch.stack([x.norm(dim=-1), y.norm(dim=-1)], dim=-1)
        parts = [5 * torch.cat([x / norms[..., :1], y / norms[..., 1:]], dim=-1), (norms.exp() - 1.1) / 0.1]
    else:
        parts = [torch.cat([x, y], dim=-1)]
    error = lambda name, target: sum(F.mse_loss(p, t) for p, t in zip(seen[name][1][0], target, strict=True))  # noqa: E731
    assert number(objective.terms["past"]) == pytest.approx(number(error("past", [p[:, [1, 0]] for p in parts])), rel=1e-4)
    assert number(objective.terms["future"]) == pytest.approx(number(error("future", [p[:, 2:] for p in parts])), rel=1e-4)
    assert number(objective.terms["kl"]) == pytest.approx(0.25 * number(kl_to_normal(*seen["posterior"][1])))
    assert all(number(part.abs().max()) == 0 for part in seen["past"][0][:2])  # the past decoder's inputs are zeros
    system.pose_steps.fill_(3)
    again = system.pose_objective(batch)
    assert number(again.terms["kl"]) == pytest.approx(0.5 * number(again.metrics["kl_nats"]))


def test_codes_of_a_step_are_consecutive_in_training_and_in_sampling() -> None:
    """The release's sampler reads at other offsets than its training."""
    system = small(future_steps=4, code=3, fed="truth")
    batch, seen = batch_for(system), []
    posterior = torch.arange(12.0).expand(3, 12)
    system.future_encoder.forward = lambda *_: (posterior, torch.full((3, 12), -200.0))
    system.future_decoder.code.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    system.pose_objective(batch)
    assert seen[0][0].round().tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    seen.clear()
    past = system.past_frames
    with torch.no_grad():
        system.forecast_poses(batch.video[:1, :, :past], batch.pose[:1, :past], seeds=[5], futures=2)
    generator = torch.Generator().manual_seed(5)
    drawn = torch.stack([torch.randn(4, 3, generator=generator) for _ in range(2)])
    assert torch.equal(torch.cat(seen, dim=1), drawn)


@pytest.mark.equation("pose_knows", "4")
def test_the_objective_of_the_discriminator_is_cross_entropy_of_two_classes() -> None:
    system = small(discriminator_logits=2, discriminator_norm="batch", condition_discriminator=False).train()
    batch, logits = batch_for(system), []
    system.discriminator.last.register_forward_hook(lambda _module, _inputs, output: logits.append(output.flatten(1)))
    terms = system.discriminator_objective(batch).terms
    real, fake = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    assert number(terms["real"]) == pytest.approx(number(F.cross_entropy(logits[0], real)), rel=1e-5)
    assert number(terms["fake"]) == pytest.approx(number(F.cross_entropy(logits[1], fake)), rel=1e-5)


@pytest.mark.equation("pose_knows", "5")
def test_the_objective_of_the_generator() -> None:
    """Cross-entropy towards real, and a mean absolute error whose weight is 1000 in the release's pixels of width 1."""
    system = small(discriminator_logits=2, l1_weight=500.0).train()
    batch, logits = batch_for(system), []
    system.discriminator.last.register_forward_hook(lambda _module, _inputs, output: logits.append(output.flatten(1)))
    terms = system.generator_objective(batch).terms
    torch.manual_seed(0)
    now = system.past_frames - 1
    real = torch.cat([batch.video[:, :, now:], batch.video[:, :, -1:].expand(-1, -1, 3, -1, -1)], dim=2)  # 5 frames and 3 more
    poses = batch.pose[:, now:]
    painted = system.paint_over(real[:, :, 0], poses, system.skeletons(poses))
    width_one = (painted / 2 - real / 2).abs().mean()
    assert number(terms["l1"]) == pytest.approx(1000 * number(width_one), rel=1e-4)
    assert number(terms["adversarial"]) == pytest.approx(number(F.cross_entropy(logits[0], torch.zeros(3, dtype=torch.long))))


def test_the_generator_is_judged_by_the_discriminator_as_it_is_then() -> None:
    """The rendered clip of the discriminator's turn is used again, its scores are not (the release reuses both)."""
    system = small().train()
    batch, judged = batch_for(system), []
    system.discriminator.register_forward_pre_hook(lambda _module, inputs: judged.append(inputs[0]))
    system.discriminator_objective(batch)
    system.generator_objective(batch)
    assert len(judged) == 3
    assert torch.equal(judged[1], judged[2])
    assert judged[2].requires_grad
    assert not judged[1].requires_grad


# --- Missing joints -----------------------------------------------------------------------------------------------------------


def test_coordinates_of_missing_joints_change_nothing() -> None:
    system = small(dropout=0.0).eval()
    batch = batch_for(system)
    batch.pose[0, :, 4, 2] = 0
    batch.pose[1, 3:, 7, 2] = 0.05  # below the threshold
    moved = batch.pose.clone()
    moved[0, :, 4, :2] = 1e6
    moved[1, 3:, 7, :2] = float("nan")
    past = system.past_frames

    def results(pose: Tensor) -> list[Tensor]:
        torch.manual_seed(0)
        changed = replace(batch, pose=pose)
        objective = system.pose_objective(changed)
        forecast = system.forecast_poses(batch.video[:, :, :past], pose[:, :past], seeds=[1, 2, 3], futures=2)
        return [*objective.terms.values(), forecast, system.generator_objective(changed).terms["l1"]]

    with torch.no_grad():
        for one, other in zip(results(batch.pose), results(moved), strict=True):
            assert torch.equal(one, other)
            assert torch.isfinite(one).all()
        forecast = results(batch.pose)[-2]
    assert number(forecast[0, :, :, 4].abs().max()) == 0
    assert number(forecast[1, :, :, 7].abs().max()) == 0
    assert (forecast[2, ..., 2] == 1).all()


def test_a_clip_without_anybody_in_it_is_no_division_by_zero() -> None:
    system = small()
    batch = batch_for(system)
    objective = system.pose_objective(replace(batch, pose=torch.zeros_like(batch.pose)))
    assert number(objective.terms["future"].detach()) == number(objective.terms["past"].detach()) == 0


# --- Closed loop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("displacement", ["directions", "euclidean"])
@pytest.mark.parametrize("origin", ["frame", "person"])
def test_a_decoder_that_tells_the_truth_leads_to_the_true_future(displacement: str, origin: str) -> None:
    """Constant velocity: also the poses inside a step are right, as they lie on a line."""
    system = small(displacement=displacement, origin=origin, future_steps=3)
    frames, past = system.clip_shape.frames, system.past_frames
    time = torch.arange(float(frames))[:, None, None]
    start = 4 + 8 * torch.rand(18, 2, generator=torch.Generator().manual_seed(0))
    velocity = 0.4 * torch.randn(18, 2, generator=torch.Generator().manual_seed(1))
    pose = torch.cat([start + time * velocity, torch.ones(frames, 18, 1)], dim=-1)[None]
    steps, _ = system.steps_of(pose)
    truth = [part[:, system.config.past_steps :] for part in system.velocities(steps)[0]]
    told = iter(range(3))

    def tell(_codes: Tensor, _poses: Tensor, state: Any) -> tuple[list[Tensor], Any]:
        number = next(told)
        return [part[:, number : number + 1] for part in truth], state

    system.future_decoder.forward = tell
    with torch.no_grad():
        video = torch.zeros(1, 3, past, 16, 16)
        forecast = system.forecast_poses(video, pose[:, :past], seeds=[0], futures=1)
    assert torch.allclose(forecast[:, 0], pose[:, past:], atol=1e-4)


def test_training_in_a_closed_loop_feeds_what_was_forecast() -> None:
    for fed in ("truth", "itself"):
        system, seen = small(fed=fed), []
        system.future_decoder.pose.register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(inputs[0]))
        batch = batch_for(system)
        system.pose_objective(batch)
        poses = torch.cat(seen, dim=1)[:, :, :36]
        true = system.steps_of(batch.pose)[0].features()[:, 2:4, :36]
        assert torch.equal(poses[:, 0], true[:, 0])
        assert torch.equal(poses, true) == (fed == "truth")


def test_fewer_futures_are_the_first_of_more() -> None:
    system = small().eval()
    batch, past = batch_for(system), system.past_frames
    with torch.no_grad():
        many = system.forecast_poses(batch.video[:, :, :past], batch.pose[:, :past], seeds=[4, 5, 6], futures=7)
        few = system.forecast_poses(batch.video[:, :, :past], batch.pose[:, :past], seeds=[4, 5, 6], futures=2)
    assert torch.allclose(many[:, :2], few, atol=1e-5)
    assert (many[:, 0] - many[:, 1]).abs().max() > 1e-4


def test_the_typical_future_is_that_of_code_zero() -> None:
    system, seen = small().eval(), []
    batch, past = batch_for(system), system.past_frames
    system.future_decoder.code.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        typical = system.forecast_typical(batch.video[:, :, :past], batch.pose[:, :past])
    assert typical.shape == (3, system.future_frames, 18, 3)
    assert all(number(code.abs().max()) == 0 for code in seen)


def test_codes_given_the_past_are_fitted_exactly_where_they_are_linear() -> None:
    """Codes whose means are a line of the state and a remainder of known covariance, with posteriors of known variance."""
    generator = torch.Generator().manual_seed(0)
    state = 100 * torch.randn(20000, 3, generator=generator)  # so large that the ridge does not count
    slope, offset = torch.tensor([[0.01, 0.0], [0.0, -0.02], [0.03, 0.01]]), torch.tensor([0.5, -1.0])
    mix = torch.tensor([[0.6, 0.0], [0.3, 0.4]])
    mu = state @ slope + offset + torch.randn(20000, 2, generator=generator) @ mix.T
    prior = CodePrior(3, 2)
    zeros, normal = torch.zeros(1, 2), torch.randn(50000, 2, generator=generator)
    assert torch.equal(prior(normal[:5], state[:5]), normal[:5])  # the paper's, until it is fitted
    fit = CodeFit(prior)
    for part in range(0, 20000, 5000):
        fit.add(state[part : part + 5000], mu[part : part + 5000], torch.full((5000, 2), 0.25))
    explained = fit.solve()
    left = torch.trace(mix @ mix.T)
    assert explained == pytest.approx(1 - float(left / (left + (100 * slope).square().sum())), abs=0.01)
    here = torch.tensor([[100.0, 50.0, -100.0]])
    torch.testing.assert_close(prior(zeros, here), here @ slope + offset, atol=0.03, rtol=0)
    drawn = prior(normal, here.expand(50000, -1))
    torch.testing.assert_close(torch.cov(drawn.T), mix @ mix.T + 0.25 * torch.eye(2), atol=0.02, rtol=0)


def test_held_out_clips_are_measured_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    system = small().eval()
    batch = batch_for(system)
    assert batch.pose is not None
    truth = batch.pose[:, system.past_frames :]
    far, near = truth.clone(), truth.clone()
    far[..., :2] += torch.tensor([6.0, 8.0])
    near[..., :2] += torch.tensor([3.0, 4.0])
    monkeypatch.setattr(system, "forecast_poses", lambda *_, **__: torch.stack([far, near], dim=1))
    monkeypatch.setattr(system, "forecast_typical", lambda *_: far)
    numbers = {name: number(value) for name, value in system.validate(batch, "pose").items()}
    assert numbers == pytest.approx({"best_of_10": 5.0, "most_likely": 10.0}, rel=1e-4)
    batch.pose[:, system.past_frames :, 3, 2] = 0  # nobody knows where that joint is
    batch.pose[:, system.past_frames :, 3, :2] = 1000
    numbers = {name: number(value) for name, value in system.validate(batch, "pose").items()}
    assert numbers == pytest.approx({"best_of_10": 5.0, "most_likely": 10.0}, rel=1e-4)
    assert set(system.validate(batch, "video")) == {"l1_pixel"}


def test_few_clips_say_little_of_codes_given_the_past() -> None:
    generator = torch.Generator().manual_seed(0)
    explained = []
    for clips in (100, 100_000):
        state = torch.rand(clips, 1, generator=generator) * 2 - 1
        fit = CodeFit(CodePrior(1, 1))
        fit.add(state, state, torch.full((clips, 1), 0.1))
        explained.append(fit.solve())
    assert explained[0] < 0.1
    assert explained[1] > 0.99


def test_the_fitted_codes_are_those_that_are_decoded(paper: PoseKnows) -> None:
    assert "codes" not in paper.stages()  # its codes know nothing of the past
    system = small(pose_norm="layer").eval()
    batch, past, seen = batch_for(system, rows=64), system.past_frames, []
    numbers = system.fit_codes([batch_for(system, rows=64, seed=seed) for seed in range(3)])
    assert 0 < numbers["explained"] < 1
    system.future_decoder.code.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        state, mu, _ = system.posterior(batch)
        system.forecast_typical(batch.video[:, :, :past], batch.pose[:, :past])
    decoded = torch.cat(seen, dim=1).flatten(1)
    assert system.codes is not None
    torch.testing.assert_close(decoded, system.codes(torch.zeros_like(mu), state[0].transpose(0, 1).flatten(1)))
    assert (decoded - mu).square().mean() < mu.square().mean()


def test_without_codes_there_is_one_future_of_a_network_of_the_same_size() -> None:
    alone, variational = small(latent="none"), small()
    assert parameters(alone) == parameters(variational) - parameters(variational.future_encoder)
    batch, past = batch_for(alone), alone.past_frames
    assert "kl" not in alone.pose_objective(batch).terms
    with torch.no_grad():
        futures = alone.eval().forecast_poses(batch.video[:, :, :past], batch.pose[:, :past], seeds=[4, 5, 6], futures=3)
    torch.testing.assert_close(futures[:, 0], futures[:, 2], rtol=0, atol=1e-4)  # rows of a product may round differently


# --- Video --------------------------------------------------------------------------------------------------------------------


def test_the_unet_sees_the_current_frame_every_pose_and_the_last_one_again() -> None:
    system = small(past_steps=2, future_steps=2, start="overlay").eval()
    batch, seen = batch_for(system, 2), []
    now = system.past_frames - 1
    system.generator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        video = system.render_poses(batch.video[:, :, now], batch.pose[:, now:])
    assert video.shape == (2, 3, 5, 16, 16)
    assert seen[0].shape == (2, 6, 8, 16, 16)
    style = STYLES["pose-knows"]
    for clip in range(2):
        drawn = draw_points(batch.pose[clip, now:].numpy().astype(np.float32), COCO_18, 16, 16, style)
        skeletons = (seen[0][clip, :3].permute(1, 2, 3, 0) + 1) * 127.5
        assert np.array_equal(skeletons.round().byte().numpy(), np.concatenate([drawn, *[drawn[-1:]] * 3]))
        assert torch.equal(seen[0][clip, 3:], batch.video[clip, :, now, None].expand(-1, 8, -1, -1))


def test_clips_and_skeletons_lie_beside_their_places_together() -> None:
    system = small(shift=0.25)
    batch, now = batch_for(system), system.config.past_frames - 1
    torch.manual_seed(0)
    real, _, skeletons = system.show(batch)
    torch.manual_seed(0)
    steps = draw_steps(0.25, batch.video, *batch.video.shape[3:])
    assert steps is not None
    assert steps.abs().sum() > 0
    poses = system.poses_of(batch)[:, now:].clone()
    poses[..., :2] += steps.flip(1)[:, None, None]
    assert torch.allclose(skeletons, system.skeletons(poses))
    frame = system.resized(shifted(batch.video[:, :, now], steps))
    assert torch.allclose(real[:, :, 0], frame)
    still = small()
    assert torch.equal(still.show(batch)[0][:, :, 0], still.resized(batch.video[:, :, now]))


def test_limbs_of_the_current_frame_are_taken_along_and_shown_to_the_unet() -> None:
    """What it adds to is the frame where nobody will be, and the person of the frame where the skeleton is."""
    system = small(past_steps=2, future_steps=2, height=32, width=32).eval()
    image, seen = torch.rand(2, 3, 32, 32) * 1.8 - 0.9, []
    poses = torch.rand(2, 5, 18, 3) * 16 + 8
    poses[..., 2] = 1
    system.generator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    system.generator.register_forward_hook(lambda *_: torch.zeros(2, 5, 8, 16, 16))
    with torch.no_grad():
        video = system.paint_over(system.resized(image), poses, system.skeletons(poses))
    half = (poses + torch.tensor([0.5, 0.5, 0])) * torch.tensor([0.5, 0.5, 1]) - torch.tensor([0.5, 0.5, 0])
    warped, cover = warp_limbs(system.resized(image), half[:, 0], half, COCO_18)
    assert seen[0].shape == (2, 10, 8, 16, 16)
    torch.testing.assert_close(seen[0][:, 6:9, :5], warped)
    torch.testing.assert_close(seen[0][:, 9:, :5], cover)
    assert torch.equal(seen[0][:, 6:, 5:], seen[0][:, 6:, 4:5].expand(-1, -1, 3, -1, -1))
    under = system.resized(image)[:, :, None].lerp(warped, cover.clamp(0.01, 0.99))
    torch.testing.assert_close(video[:, :, :5], (under.clamp(-0.98, 0.98).atanh() / (1 + np.exp(-2.0))).tanh())


def test_video_of_another_size_than_the_clip_comes_back_in_the_clips_size() -> None:
    """Poses are scaled with the picture, pixel centres on pixel centres."""
    system = small(height=64, width=64, video_height=16, video_width=16)
    pose = torch.zeros(1, 5, 18, 3)
    pose[..., 2] = 1
    pose[..., :2] = 4 * 5.0 + 1.5  # the centre of pixel 5 of a quarter of the size
    half = system.draw(pose, 16, 16)
    assert torch.equal(half, small().draw(torch.where(pose > 1, 5.0, pose), 16, 16))
    with torch.no_grad():
        assert system.eval().render_poses(torch.zeros(1, 3, 64, 64), pose).shape == (1, 3, 5, 64, 64)


def test_video_starts_from_the_current_frame_where_it_is_asked_to() -> None:
    image = torch.rand(2, 3, 16, 16) * 1.8 - 0.9
    for start in ("overlay", "image", "grey"):
        system = small(start=start).eval()
        for parameter in system.generator.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            video = system.render_poses(image, torch.ones(2, 5, 18, 3))
        bare = {"overlay": 1 / (1 + np.exp(-2.0)), "image": 1.0, "grey": 0.0}[start]
        assert torch.allclose(video, (bare * image.atanh()).tanh()[:, :, None].expand_as(video), atol=1e-5)


def test_a_mask_takes_the_current_frame_away_before_the_unet_adds_to_it() -> None:
    """Where somebody was, no edge of theirs is left, which a sum would have to cancel."""
    system = small(start="overlay").eval()
    image, poses = torch.rand(1, 3, 16, 16) * 1.8 - 0.9, torch.ones(1, 5, 18, 3)
    colours = torch.full((1, 4, 8, 16, 16), 0.3)
    colours[:, 3] = -30
    colours[:, 3, :, :, 8:] = 30
    system.generator.register_forward_hook(lambda *_: colours)
    with torch.no_grad():
        video = system.render_poses(image, poses)
    added = (image.atanh() + 0.3).tanh()
    torch.testing.assert_close(video[..., :8], added[:, :, None, :, :8].expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(video[..., 8:], torch.full_like(video[..., 8:], float(np.tanh(0.3))))


def test_a_clip_in_which_nobody_was_found_stays_as_it_is() -> None:
    """A painter has learnt to clear away whoever has no skeleton; here nothing says that somebody left."""
    system, image, poses = small().eval(), torch.rand(2, 3, 16, 16), torch.full((2, 5, 18, 3), 0.05)
    poses[1, 3:, 4] = 1.0
    with torch.no_grad():
        video = system.render_poses(image, poses)
    assert torch.equal(video[0], image[0, :, None].expand(-1, 5, -1, -1))
    assert (video[1] - image[1, :, None]).abs().max() > 0.01


def test_a_batch_norm_at_the_bottleneck_refuses_one_clip() -> None:
    """Its feature map is one position: one value per channel."""
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small(bottleneck_norm="batch").train().generator_objective(batch_for(small(), 1))


# --- Refusals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"video_height": 24}, "video_height is 24; it must be a power of two"),
        ({"video_width": 18}, "video_width is 18; it must be a multiple of 4"),
        ({"height": 20}, "tower 'small' takes square frames of 8, 16, 32, ... pixels, not 16x20"),
        ({"tower": "paper"}, "tower 'paper' takes frames of 64 pixels or more, not 16x16"),
        ({"skeleton": "coco-19"}, "did you mean 'coco-1"),
        ({"confidence": 1.0}, r"confidence is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_settings_that_cannot_be_computed_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(PoseKnows.presets["tiny"].config, **changes)


def test_poses_of_another_layout_or_length_are_refused() -> None:
    system, batch = small(), batch_for(small())
    past = system.past_frames
    with pytest.raises(DataError, match="the clips have poses of 17 joints; pose-knows is set to coco-18, 18 joints"):
        system.pose_objective(replace(batch, pose=batch.pose[:, :, :17]))
    with pytest.raises(DataError, match=f"the past has {past - 1} frames; this pose-knows forecasts from {past}"):
        system.forecast_poses(batch.video[:, :, 1:past], batch.pose[:, 1:past], seeds=[1, 2, 3], futures=1)
    with pytest.raises(DataError, match="there are 3 poses of 18 joints; this pose-knows renders the image's own and 4 more"):
        system.render_poses(batch.video[:, :, 0], batch.pose[:, :3])
    with pytest.raises(DataError, match="nobody moves in these clips"):
        system.fit_spread([replace(batch, pose=torch.ones_like(batch.pose))])


def test_the_spread_is_that_of_the_footage_and_the_drawing_is_part_of_the_settings() -> None:
    system, batch = small(), batch_for(small())
    numbers = system.fit_spread([batch])
    steps = batch.pose[:, ::2, :, :2].numpy()
    assert numbers["displacement_pixels"] == pytest.approx(float(np.sqrt(np.mean(np.diff(steps, axis=1) ** 2))), rel=1e-5)
    assert PoseKnowsConfig().drawing == STYLES["pose-knows"]


def test_joints_that_count_as_missing_are_neither_drawn_nor_judged() -> None:
    system = small(confidence=0.6)
    batch = batch_for(system)
    assert batch.pose is not None
    batch.pose[:, :, 4, 2] = 0.3
    moved = batch.pose.clone()
    moved[:, :, 4, :2] += 3
    c = system.config
    assert torch.equal(*(system.draw(poses, c.height, c.width) for poses in (batch.pose, moved)))
    judged = [system.validate(replace(batch, pose=poses), "pose") for poses in (batch.pose, moved)]
    assert judged[0] == judged[1]
