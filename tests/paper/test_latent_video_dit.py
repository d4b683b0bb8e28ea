"""The Sora-style system: its six parts, counts and one test per equation, against the specification."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.tasks import Diffuses, Generates, Inpaints, Predicts, Reconstructs
from kinema.core.types import Batch, ClipShape
from kinema.nn.paths import edm_input, edm_scales
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.systems.latent_video_dit_compressor import fold, unfold
from kinema.systems.latent_video_dit_networks import (
    AdaptiveNorm,
    Attention,
    LatentVideoDiTConfig,
    NeighbourConvolution,
    Transformer,
    WrittenOut,
    from_tokens,
    positions,
    to_tokens,
)
from kinema.systems.latent_video_dit_tasks import TASKS, hold, task_masks, with_mask

TINY = replace(LatentVideoDiT.presets["tiny"].config, hidden=32, compressor_width=8)
LAPTOP = LatentVideoDiT.presets["laptop"].config
SHEET = replace(LAPTOP, hidden=128, depth=4, heads=4, compressor_linear="none", patch_time=2)  # the specification's sizes


def parameters(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def tiny(**changes: object) -> LatentVideoDiT:
    torch.manual_seed(3)
    return LatentVideoDiT(replace(TINY, **changes)).eval()


def awake(system: LatentVideoDiT) -> LatentVideoDiT:
    """Every parameter drawn anew: at the start most of the transformer gives 0."""
    for parameter in system.parameters():
        nn.init.normal_(parameter, std=0.2)
    return system


@pytest.fixture(scope="module")
def sheet() -> LatentVideoDiT:
    with torch.device("meta"):
        return LatentVideoDiT(replace(SHEET, condition="label", classes=9))


# --- What earns the name ------------------------------------------------------------------------------------------------------


def test_a_compressor_in_space_and_time_is_learned() -> None:
    system = tiny()
    assert isinstance(system, Reconstructs)
    assert "compressor" in system.stages()
    mean, _ = system.compressor.encode(torch.zeros(1, 3, 8, 16, 16))
    assert mean.shape == (1, 8, 4, 4, 4)


def test_tokens_are_patches_of_space_and_time() -> None:
    latent = torch.arange(2.0 * 4 * 4 * 4).reshape(1, 2, 4, 4, 4)
    tokens = to_tokens(latent, (2, 2, 2))
    assert tokens.shape == (1, 2, 2, 2, 16)
    assert sorted(tokens[0, 1, 0, 1].tolist()) == sorted(latent[0, :, 2:4, 0:2, 2:4].flatten().tolist())


def test_time_and_caption_condition_the_transformer() -> None:
    system = awake(tiny(condition="caption"))
    system.words.fit([["somebody waves", "somebody kicks"]])
    waves, kicks = (system.diffuse([1], caption=[text]) for text in ("somebody waves", "somebody kicks"))
    assert not torch.equal(waves, kicks)
    x = torch.randn(1, 8, 4, 4, 4)
    early, late = (system.transformer(x, torch.tensor([time])) for time in (0.1, 0.9))
    assert not torch.equal(early, late)


@pytest.mark.parametrize("shape", ["4x16x16", "8x16x32", "8x24x16", "12x8x8", "1x16x16", "1x32x24"])
def test_durations_sizes_and_aspects_vary_and_an_image_is_one_frame(shape: str) -> None:
    frames, height, width = map(int, shape.split("x"))
    system = awake(tiny())
    assert system.diffuse([1], shape=ClipShape(frames, height, width)).shape == (1, 3, frames, height, width)


def test_one_model_does_every_task_that_images_and_video_prompt() -> None:
    system = awake(tiny())
    assert isinstance(system, Generates | Diffuses)
    assert isinstance(system, Inpaints)
    assert isinstance(system, Predicts)
    assert {"first frame", "first frames", "last frames", "first and last", "around a box", "around a track"} < set(TASKS)
    video = torch.rand(1, 3, 8, 16, 16) * 2 - 1
    known = torch.ones(1, 1, 8, 16, 16)
    assert torch.equal(system.inpaint(video, known, seeds=[1]), video)
    loop = torch.zeros_like(known)
    loop[:, :, [0, -1]] = 1
    closed = video.clone()
    closed[:, :, -1] = closed[:, :, 0]
    made = system.inpaint(closed, loop, seeds=[1])
    assert torch.equal(made[:, :, -1], made[:, :, 0])
    assert torch.equal(system.predict(video[:, :, :1], seeds=[1])[:, :, 0], video[:, :, 0])


# --- Layers and counts --------------------------------------------------------------------------------------------------------


def test_the_counts_of_the_specification(sheet: LatentVideoDiT) -> None:
    assert parameters(sheet.compressor) == 900_592
    assert parameters(sheet.compressor.encoder) == 450_512
    assert parameters(sheet.compressor.decoder) == 450_080
    assert parameters(sheet.transformer, sheet.classes) == 1_417_024
    transformer = sheet.transformer
    assert parameters(transformer.embed) == 8_320
    assert parameters(transformer.known) == 131_200
    assert parameters(transformer.time) == 33_024
    assert parameters(sheet.classes) == 1_280
    assert [parameters(block) for block in transformer.blocks] == [300_480] * 4
    block = transformer.blocks[0]
    assert parameters(block.neighbours) == 3_584
    assert parameters(block.modulation) == 99_072
    assert parameters(block.mlp) == 131_712
    assert parameters(block.attention) == 49_536 + 16_512 + 64
    assert parameters(transformer.modulation, transformer.out) == 41_280


def test_linear_maps_add_two_matrices_and_take_the_place_of_the_encoder() -> None:
    with torch.device("meta"):
        shortcut, linear = (
            LatentVideoDiT(replace(LAPTOP, compressor_linear=kind)).compressor for kind in ("shortcut", "encoder")
        )
    assert parameters(shortcut.project) == 96 * 8 + 8
    assert parameters(shortcut.restore) == 8 * 96 + 96
    assert parameters(shortcut) == 900_592 + 776 + 864
    assert parameters(linear) == 450_080 + 776 + 864


def test_tokens_of_half_the_time_have_smaller_matrices_at_both_ends() -> None:
    with torch.device("meta"):
        system = LatentVideoDiT(replace(SHEET, condition="label", classes=9, patch_time=1))
    fewer = 32 * 128 + 512 * 128 + 128 * 32 + 32  # into the stream: half the latent, half the known pixels; out of it: half
    assert parameters(system.transformer, system.classes) == 1_417_024 - fewer


def test_the_counts_of_the_preset() -> None:
    with torch.device("meta"):
        system = LatentVideoDiT(replace(LAPTOP, condition="label", classes=8))
    assert parameters(system.transformer, system.classes) == 1_600_224
    assert [parameters(block) for block in system.transformer.blocks] == [467_744] * 3


def test_the_shapes_of_the_specification(sheet: LatentVideoDiT) -> None:
    video = torch.zeros(2, 3, 16, 32, 32, device="meta")
    assert fold(video, LAPTOP.stem).shape == (2, 96, 8, 8, 8)
    assert sheet.encode(video).shape == (2, 8, 8, 8, 8)
    assert sheet.config.footprint == (4, 8, 8)
    assert sheet.config.tokens(LAPTOP.shape) == 64
    assert LAPTOP.footprint == (2, 8, 8)  # the preset's tokens last half as long as the specification's
    assert LAPTOP.tokens(LAPTOP.shape) == 128


def test_muon_moves_the_matrices_of_the_blocks_alone(sheet: LatentVideoDiT) -> None:
    matrices = sheet.transformer.matrices
    assert len(matrices) == 16
    assert sum(matrix.numel() for matrix in matrices) == 786_432
    assert all(matrix.dim() == 2 for matrix in matrices)
    (player,) = tiny().stages()["transformer"]
    moved = [p for module in player.moves for p in module.parameters()]
    one, other = player.optimizer(moved)
    assert isinstance(one, torch.optim.Muon)
    assert type(other).__name__ == "AdamW"
    assert sum(len(group["params"]) for o in (one, other) for group in o.param_groups) == len(moved)


def test_at_the_start_every_block_is_the_identity_and_the_output_zero() -> None:
    system = tiny()
    tokens = torch.randn(2, 2, 2, 2, 32)
    assert torch.equal(system.transformer.blocks[0](tokens, torch.randn(2, 32)), tokens)
    assert (system.transformer(torch.randn(2, 8, 4, 4, 4), torch.rand(2)) == 0).all()


def test_the_compressor_starts_as_a_linear_map() -> None:
    features = torch.randn(1, 8, 2, 3, 3)
    assert torch.equal(tiny(compressor_linear="none").compressor.encoder[1](features), features)


def test_fold_and_tokens_invert() -> None:
    video = torch.randn(2, 3, 8, 16, 24)
    assert torch.equal(unfold(fold(video, (2, 4, 4)), (2, 4, 4)), video)
    assert torch.equal(from_tokens(to_tokens(video, (4, 8, 8)), (4, 8, 8)), video)


def test_cropping_the_grid_crops_the_positions() -> None:
    whole = positions((4, 6, 5), 128)
    assert torch.equal(positions((2, 3, 4), 128), whole[:2, :3, :4])
    assert torch.allclose(positions((2, 3, 4), 128, (2, 3, 1)), whole[2:, 3:, 1:])
    assert whole.shape == (4, 6, 5, 128)
    assert torch.equal(whole[0, :, :, :44], whole[0, :1, :1, :44].expand(6, 5, -1)), "44 channels tell the time"
    assert len(torch.unique(whole.flatten(0, 2), dim=0)) == 120


def test_attention_written_out_and_its_gradients_are_those_of_torch() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 2)
    for norm in (attention.query_norm, attention.key_norm):
        nn.init.normal_(norm.weight, 1.0, 0.3)
    tokens = torch.randn(3, 5, 16)
    found = []
    for written_out in (True, False):
        attention.zero_grad()
        seen = tokens.clone().requires_grad_()
        if written_out:
            joined, scale = attention.joined(seen), attention.query_norm.weight * attention.key_norm.weight
            made = attention.out(WrittenOut.apply(joined, scale, 2))
        else:
            made = attention(seen)
        made.backward(torch.linspace(-1, 1, made.numel()).reshape(made.shape))
        found.append([made.detach(), seen.grad, *(parameter.grad.clone() for parameter in attention.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_adaptive_norm_and_its_gradients_are_those_of_its_formula() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 2, 3, 1, 6, dtype=torch.float64, requires_grad=True)
    shift, scale = (torch.randn(2, 1, 1, 1, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    norm = AdaptiveNorm()
    torch.testing.assert_close(norm(tokens, shift, scale), shift + (1 + scale) * layer_norm(tokens, (6,), eps=1e-6))
    assert torch.autograd.gradcheck(norm, (tokens, shift, scale))
    assert norm(tokens.float(), shift.bfloat16(), scale.bfloat16()).dtype == torch.bfloat16


def test_attention_in_bf16_is_attention() -> None:
    torch.manual_seed(0)
    attention, tokens = Attention(16, 2), torch.randn(2, 6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        made = attention(tokens)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), attention(tokens), atol=0.03, rtol=0.03)


def test_queries_and_keys_are_normalised() -> None:
    attention = Attention(16, 2)
    tokens = torch.randn(1, 5, 16)
    with torch.no_grad():
        before = attention(tokens)
        attention.joined.weight[:32] *= 100
        attention.joined.bias[:32] *= 100
        after = attention(tokens)
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_the_token_convolution_and_its_gradients_are_those_of_torch(frames: int) -> None:
    ours, theirs = NeighbourConvolution(6), nn.Conv3d(6, 6, 3, padding=1, groups=6)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    theirs.load_state_dict(ours.state_dict())
    one = torch.randn(2, frames, 3, 4, 6, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    made = ours(one)
    expected = theirs(other.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(made, expected)
    gradient = torch.randn_like(made)
    made.backward(gradient)
    expected.backward(gradient)
    for a, b in ((one.grad, other.grad), (ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_alternating_blocks_see_their_frame_and_their_place() -> None:
    system = awake(tiny(attention="alternating", token_convolution=False))
    frame, place = system.transformer.blocks
    tokens, context = torch.randn(1, 3, 2, 2, 32), torch.randn(1, 32)
    changed = tokens.clone()
    changed[0, 1, 0, 1] += 1
    differs = [(block(tokens, context) != block(changed, context)).any(dim=-1)[0] for block in (frame, place)]
    assert differs[0].nonzero()[:, 0].unique().tolist() == [1], "only its frame notices"
    assert differs[0][1].all()
    assert differs[1][:, 0, 1].all()
    assert differs[1].sum() == 3, "only its place notices"


# --- Equations ----------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("latent_video_dit", "1")
def test_the_loss_is_the_squared_error_of_the_velocity() -> None:
    system = awake(tiny())
    clean, noise = torch.randn(2, 8, 4, 4, 4), torch.randn(2, 8, 4, 4, 4)
    times = torch.tensor([0.2, 0.7])
    t = times[:, None, None, None, None]
    made = system.transformer((1 - t) * clean + t * noise, times)
    expected = (made - (noise - clean)).square().mean()
    torch.testing.assert_close(system.flow_terms(clean, noise, times, None, None)["flow"], expected)


def test_the_first_loss_is_that_of_predicting_nothing() -> None:
    """E |noise - x0|^2 = 2 for a normalised latent."""
    system = tiny()
    clean, noise = torch.randn(64, 8, 4, 4, 4), torch.randn(64, 8, 4, 4, 4)
    with torch.no_grad():
        assert float(system.flow_terms(clean, noise, torch.rand(64), None, None)["flow"]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.equation("latent_video_dit", "2")
def test_times_are_logit_normal_and_move_towards_noise_with_the_number_of_tokens() -> None:
    system = tiny()
    torch.manual_seed(0)
    times = system.draw_times(200_000, 64, torch.device("cpu"))
    assert float(times.median()) == pytest.approx(0.5, abs=0.005)
    assert float((times < 1 / (1 + math.e)).float().mean()) == pytest.approx(0.1587, abs=0.005), "one deviation below"
    torch.manual_seed(0)
    many = system.draw_times(200_000, 1024, torch.device("cpu"))
    assert system.shift(1024) == 2.0
    torch.testing.assert_close(many, 2 * times / (1 + times))


@pytest.mark.equation("latent_video_dit", "3")
def test_guidance_goes_from_the_null_and_keeps_the_known_pixels() -> None:
    system = awake(tiny(condition="label", classes=3))
    x, times = torch.randn(2, 8, 4, 4, 4), torch.tensor([0.4, 0.4])
    known = torch.randn(2, 4, 8, 16, 16)
    context = system._context(2, torch.tensor([0, 2]), None)
    null = system._context(2, None, None)
    assert torch.equal(null, system.classes(torch.tensor([3, 3]))), "the null is the class after the last"
    with_it, without = system.transformer(x, times, context, known), system.transformer(x, times, null, known)
    made = system.model(TINY.shape, context, null, known, None, Sampling(guidance=2.5)).predict(x, times)
    torch.testing.assert_close(made, without + 2.5 * (with_it - without))
    assert torch.equal(system.model(TINY.shape, context, null, known, None, Sampling()).predict(x, times), with_it)


@pytest.mark.equation("latent_video_dit", "3")
def test_known_pixels_have_a_weight_of_their_own() -> None:
    system = awake(tiny(condition="label", classes=3))
    x, times = torch.randn(2, 8, 4, 4, 4), torch.tensor([0.4, 0.4])
    known, nothing = torch.randn(2, 4, 8, 16, 16), torch.zeros(2, 4, 8, 16, 16)
    context, null = system._context(2, torch.tensor([0, 2]), None), system._context(2, None, None)
    neither = system.transformer(x, times, null, nothing)
    seen, both = system.transformer(x, times, null, known), system.transformer(x, times, context, known)
    how = Sampling(guidance=2.5, known_guidance=3.0)
    made = system.model(TINY.shape, context, null, known, nothing, how).predict(x, times)
    torch.testing.assert_close(made, neither + 3 * (seen - neither) + 2.5 * (both - seen))
    made = system.model(TINY.shape, None, null, known, nothing, how).predict(x, times)
    torch.testing.assert_close(made, neither + 3 * (seen - neither))


def test_nothing_known_is_unconditional_bit_for_bit() -> None:
    system = awake(tiny())
    video = torch.rand(1, 3, 8, 16, 16)
    free = system.inpaint(video, torch.zeros(1, 1, 8, 16, 16), seeds=[4])
    assert torch.equal(free, system.diffuse([4]))


def test_unknown_pixels_are_not_looked_at_and_known_ones_are() -> None:
    system = awake(tiny())
    known = torch.zeros(1, 1, 8, 16, 16)
    known[..., :8] = 1
    video = torch.rand(1, 3, 8, 16, 16)
    other, hidden = video.clone(), video.clone()
    other[..., :8] *= -1
    hidden[..., 8:] = 0.3
    made = system.inpaint(video, known, seeds=[4], paste=False)
    assert torch.equal(made, system.inpaint(hidden, known, seeds=[4], paste=False))
    assert not torch.equal(made, system.inpaint(other, known, seeds=[4], paste=False))


def test_without_the_pixel_condition_known_pixels_are_pasted_over_clips_made_unseen() -> None:
    system = awake(tiny(pixel_condition=False))
    made = system.predict(torch.full((1, 3, 1, 16, 16), 0.5), seeds=[1])
    assert (made[:, :, 0] == 0.5).all()
    assert torch.equal(made[:, :, 1:], system.diffuse([1])[:, :, 1:])
    assert set(system.validate(Batch(torch.rand(2, 3, 8, 16, 16)), "transformer")) == {"reconstruction_psnr", "flow"}


def test_an_unknown_pixel_shows_what_is_known_at_its_place_at_the_nearest_time() -> None:
    video = torch.arange(1.0, 7.0).reshape(1, 1, 6, 1, 1).expand(1, 3, 6, 1, 2).clone()
    known = torch.zeros(1, 1, 6, 1, 2)
    known[:, :, [1, 5], :, 0] = 1
    made = with_mask(video, known)
    assert made[0, 0, :, 0, 0].tolist() == [2, 2, 2, 2, 6, 6]
    assert made[0, 0, :, 0, 1].tolist() == [0] * 6, "nothing is ever known there"
    assert made[0, 3, :, 0, 0].tolist() == [0, 1, 0, 0, 0, 1]
    assert made[0, 1:3].equal(made[0, :1].expand(2, -1, -1, -1)), "all colours alike"


def test_clips_of_more_frames_than_a_short_counts_show_the_nearest_too() -> None:
    video, known = torch.zeros(1, 3, 17000, 1, 1), torch.zeros(1, 1, 17000, 1, 1)
    video[:, :, 16999], known[:, :, 16999] = 0.5, 1
    made = with_mask(video, known)
    assert torch.equal(made[:, :3], torch.full_like(video, 0.5))
    assert torch.equal(made[:, 3:], known)


def test_edm_s_coefficients() -> None:
    sigma = torch.tensor([0.5, 2.0])
    skip, scale = edm_scales(sigma, 1.0)
    assert skip.flatten().tolist() == pytest.approx([1 / 1.25, 1 / 5])
    assert scale.flatten().tolist() == pytest.approx([0.5 / 1.25**0.5, 2 / 5**0.5])
    x = torch.ones(2, 1, 1, 1, 1)
    assert edm_input(x, sigma, 1.0).flatten().tolist() == pytest.approx([1.25**-0.5, 5**-0.5])


@pytest.mark.parametrize("path", ["flow", "noise", "edm"])
def test_every_path_recovers_a_latent_that_it_is_told(path: str) -> None:
    """With the exact answer for one known clip in place of the network, sampling ends at that clip."""
    system = tiny(path=path)
    clean = torch.randn(2, 8, 4, 4, 4)

    def knows(x: Tensor, times: Tensor, context: object = None, known: object = None) -> Tensor:
        t = times[:, None, None, None, None]
        if path == "edm":
            sigma = (4 * t).exp()
            skip, scale = edm_scales(sigma.flatten(), 1.0)
            return (clean - skip * x * (sigma.square() + 1).sqrt()) / scale
        found = system.path(1.0)
        c = found.coefficients(times, x)
        noise = (x - c.alpha * clean) / c.sigma
        return found.target(system.kind, clean, noise, times)

    system.transformer.forward = knows
    made = system._denoise([1, 2], TINY.shape, None, None, None, replace(system.sampling, steps=20))
    torch.testing.assert_close(made, clean, atol=0.02, rtol=0.02)


# --- Tasks --------------------------------------------------------------------------------------------------------------------


def masks_of(task: str, rows: int = 400) -> Tensor:
    numbers = torch.rand(rows, 8, generator=torch.Generator().manual_seed(1))
    names = list(TASKS)
    edges = torch.tensor([0.0, *torch.tensor(list(TASKS.values())).cumsum(0).tolist()])
    first, last = edges[names.index(task)], edges[names.index(task) + 1]
    numbers[:, 0] = first + (last - first) * (0.01 + 0.98 * numbers[:, 0])
    return task_masks(numbers, ClipShape(16, 32, 32))[:, 0]


def test_tasks_come_as_often_as_they_should() -> None:
    assert sum(TASKS.values()) == pytest.approx(1)
    known = task_masks(torch.rand(20_000, 8, generator=torch.Generator().manual_seed(1)), ClipShape(16, 8, 8))[:, 0]
    nothing = (known.flatten(1).sum(dim=1) == 0).float().mean()
    assert float(nothing) == pytest.approx(TASKS["nothing"], abs=0.02)


def test_frames_are_known_as_wholes() -> None:
    frames = {task: masks_of(task).mean(dim=(2, 3)) for task in list(TASKS)[:6]}
    assert all(((known == 0) | (known == 1)).all() for known in frames.values())
    assert frames["nothing"].sum() == 0
    assert (frames["first frame"].sum(dim=1) == 1).all()
    assert (frames["first frame"][:, 0] == 1).all()
    first, last = frames["first frames"], frames["last frames"]
    assert (first.diff(dim=1) <= 0).all()
    assert (last.diff(dim=1) >= 0).all()
    assert first.sum(dim=1).unique().tolist() == list(range(1, 9))
    assert torch.equal(first, last.flip(1))
    assert frames["first and last"].nonzero()[:, 1].unique().tolist() == [0, 15]
    assert 1 <= frames["some frames"].sum(dim=1).mean() <= 5


def test_a_box_stands_still_and_a_track_moves() -> None:
    box, track = masks_of("around a box"), masks_of("around a track")
    assert (box == box[:, :1]).all()
    moved = (track != track[:, :1]).flatten(1).any(dim=1).float().mean()
    assert moved > 0.95
    hidden = 1 - torch.cat([box, track])
    rows, columns = hidden.amax(dim=3), hidden.amax(dim=2)
    assert torch.equal(hidden, rows[..., None] * columns[:, :, None]), "what is hidden is a rectangle in every frame"
    assert rows.sum(dim=2).min() >= 8
    assert rows.sum(dim=2).max() <= 21


def test_further_sizes_have_as_many_tokens_in_a_step() -> None:
    system = tiny(bucket_share=1.0)
    batch = Batch(torch.rand(4, 3, 8, 16, 16), label=torch.arange(4))
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        cut = system._cut(batch)
        shape = ClipShape(*cut.video.shape[2:])
        seen.add(str(shape))
        assert TINY.tokens(shape) * len(cut) == TINY.tokens(TINY.shape) * len(batch)
        assert cut.label.tolist() == [0, 1, 2, 3] * (len(cut) // 4)
        assert cut.video[1].flatten()[0] in batch.video[1], "piece and label are of the same clip"
    assert seen == {"1x16x16", "4x16x16"}


def test_a_still_frame_is_held_for_as_long_as_a_token() -> None:
    image = torch.rand(1, 3, 1, 16, 16)
    assert torch.equal(hold(image, 4), image.expand(-1, -1, 4, -1, -1))
    system = awake(tiny())
    assert system.reconstruct(image).shape == image.shape


def test_both_stages_learn_from_still_frames_too() -> None:
    system = tiny(buckets=("1x16x16",), bucket_share=1.0)
    for objective in (system.compressor_objective, system.transformer_objective):
        assert objective(Batch(torch.rand(2, 3, 8, 16, 16))).total.isfinite()


def test_every_stage_learns_from_single_frames_alone() -> None:
    system = awake(tiny(frames=1, buckets=(), compressor_linear="shortcut"))
    batch = Batch(torch.rand(2, 3, 1, 16, 16) * 2 - 1)
    with torch.no_grad():
        system.fit_linear_start([batch])
        system.fit_scale([batch])
    for objective in (system.compressor_objective, system.transformer_objective):
        assert objective(batch).total.isfinite()
    assert all(value.isfinite() for value in system.validate(batch, "transformer").values())
    assert system.generate([0]).shape == (1, 3, 1, 16, 16)


# --- Latents ------------------------------------------------------------------------------------------------------------------


def test_normalised_latents_have_mean_0_and_deviation_1() -> None:
    system = awake(tiny(channel_emphasis=0))
    batches = [Batch(torch.rand(8, 3, 8, 16, 16, generator=torch.Generator().manual_seed(n)) * 2 - 1) for n in range(3)]
    with torch.no_grad():
        system.fit_scale(batches)
        latents = torch.cat([system.encode(batch.video) for batch in batches])
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-3
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-3


def test_a_cached_latent_is_trained_on_in_place_of_encoding() -> None:
    system = tiny(buckets=())
    video = torch.rand(2, 3, 8, 16, 16)
    losses = []
    for latent in (None, system.encode(video).detach(), torch.zeros(2, 8, 4, 4, 4)):
        torch.manual_seed(1)
        losses.append(float(system.transformer_objective(Batch(video, latent=latent)).total.detach()))
    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] != pytest.approx(losses[0], abs=1e-3)


def test_the_compressor_s_terms() -> None:
    system = awake(tiny(buckets=(), kl_weight=0.5))
    video = torch.rand(2, 3, 8, 16, 16) * 2 - 1
    torch.manual_seed(5)
    terms = system.compressor_objective(Batch(video)).terms
    torch.manual_seed(5)
    mean, log_variance = system.compressor.encode(video)
    made = system.compressor.decode(mean + (log_variance / 2).exp() * torch.randn(2, 8, 4, 4, 4))
    torch.testing.assert_close(terms["absolute"], (made - video).abs().mean())
    torch.testing.assert_close(terms["squared"], (made - video).square().mean())
    normal, own = torch.distributions.Normal(0, 1), torch.distributions.Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(terms["divergence"], 0.5 * torch.distributions.kl_divergence(own, normal).mean())


# --- What is refused ----------------------------------------------------------------------------------------------------------


def test_sizes_that_tokens_do_not_tile_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"8x20x16 are no multiple of 4x8x8 \(or one .*; the nearest: 8x16x16 and 8x24x16"):
        tiny().diffuse([1], shape=ClipShape(8, 20, 16))
    with pytest.raises(ConfigError, match=r"the nearest: 16x32x32 and 18x32x32"):
        LatentVideoDiTConfig(frames=17)


def test_conditions_that_it_was_not_trained_with_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trained without captions and cannot be asked for one; it knows labels"):
        tiny(condition="label", classes=2).diffuse([1], caption=["a wave"])
    with pytest.raises(ConfigError, match=r"trained without labels .*; it knows no conditions"):
        tiny().generate([1], label=torch.tensor([0]))


def test_a_class_that_there_is_not_is_refused() -> None:
    """The index after the last is the null, which would pass for a class."""
    with pytest.raises(ConfigError, match=r"labels of latent-video-dit are 0 to 1; these reach \[0, 2\]"):
        tiny(condition="label", classes=2).generate([1, 2], label=torch.tensor([0, 2]))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"steps is 0; it must be 1 or more"):
        tiny().diffuse([1], sampling=Sampling(steps=0))


def test_a_bucket_that_is_no_part_of_a_clip_is_refused() -> None:
    with pytest.raises(ConfigError, match="16x16x16 in buckets cannot be cut from clips of 8x16x16"):
        replace(TINY, buckets=("16x16x16",))
    with pytest.raises(ConfigError, match="'16x16' is no size"):
        replace(TINY, buckets=("16x16",))


def test_the_dataset_decides_what_clips_are_asked_by() -> None:
    assert LAPTOP.for_labels(["kick", "wave"]).asked_by == ("label",)
    assert LAPTOP.for_labels(["kick", "wave"]).classes == 2
    assert LAPTOP.for_labels([]).asked_by == ()
    assert LAPTOP.for_labels(["one"]).asked_by == ()
    assert replace(LAPTOP, condition="none").for_labels(["kick", "wave"]).asked_by == ()
    assert replace(LAPTOP, condition="label").for_labels(["kick", "wave", "bow"]).classes == 3


def test_the_transformer_is_the_same_whatever_the_batch() -> None:
    system = awake(tiny())
    assert isinstance(system.transformer, Transformer)
    both = system.diffuse([1, 2])
    torch.testing.assert_close(both[1:], system.diffuse([2]), atol=1e-5, rtol=1e-5)
