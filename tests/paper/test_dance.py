"""Chan et al. 2019: layers, counts, costs, invariants, and one test per equation."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.errors import ConfigError
from kinema.core.types import Batch
from kinema.nn.discriminators import halved
from kinema.nn.regions import boxes_around, crop, draw_steps, shifted
from kinema.nn.resnet import Overlay
from kinema.systems.dance import Dance, DanceConfig, Face, Scene
from kinema.training import TrainConfig, Trainer

TINY = Dance.presets["tiny"].config


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def multiplications(run) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


@cache
def unallocated(preset: str = "paper") -> Dance:
    """Build a full-size system without memory or arithmetic."""
    with torch.device("meta"):
        return Dance(Dance.presets[preset].config).eval()


def blank(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


def dance(**changes) -> Dance:
    torch.manual_seed(0)
    return Dance(replace(TINY, **changes))


def batch(rows: int = 2, frames: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    video = torch.rand(rows, 3, frames, 32, 32, generator=generator) * 2 - 1
    pose = torch.rand(rows, frames, 18, 3, generator=generator) * torch.tensor([32.0, 32.0, 1.0])
    return Batch(video, pose=pose)


def player(system: Dance, stage: str, name: str):
    return next(one for one in system.stages()[stage] if one.name == name)


# --- Counts, shapes and costs -------------------------------------------------------------------------------------------------


def test_the_generators_have_the_papers_size():
    system = unallocated()
    assert parameters(unallocated("paper-512").generator) == parameters(system.generator) == 182_452_675
    assert parameters(system.generator.trunk) == 182_443_264
    assert parameters(system.generator.trunk, system.enhancer) == 182_715_939
    assert parameters(system.face_generator) == 26_724_291


def test_the_discriminators_have_the_papers_size():
    system = unallocated()
    assert [parameters(scale) for scale in system.discriminator.scales] == [2_773_953] * 3
    assert len(unallocated("paper-512").discriminator.scales) == 2
    assert parameters(system.face_discriminator) == 2_769_601


def test_patches():
    system, small = unallocated(), unallocated("paper-512")
    assert [one.logits.shape[2:] for one in small.discriminator(blank(1, 12, 256, 512))] == [(35, 67), (19, 35)]
    assert [one.logits.shape[2:] for one in system.discriminator(blank(1, 12, 512, 1024))] == [(67, 131), (35, 67), (19, 35)]
    assert [one.logits.shape[2:] for one in system.discriminator(blank(1, 12, 256, 512), first=1)] == [(35, 67), (19, 35)]
    judgement = system.face_discriminator(blank(1, 6, 128, 128))
    assert judgement.logits.shape[2:] == (19, 19)
    assert [one.shape[1] for one in judgement.features] == [64, 128, 256, 512]
    assert system.config.face_side == 128


def test_a_patch_is_70_pixels_wide():
    torch.manual_seed(0)
    judge = dance(discriminator_width=2).face_discriminator.eval()
    image = torch.rand(1, 6, 160, 160, requires_grad=True)
    judge(image).logits[0, 0, 12, 12].backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_costs_of_a_frame():
    system = unallocated()
    coarse = multiplications(lambda: system.paint_global(0, blank(1, 3, 256, 512), blank(1, 3, 256, 512)))
    fine = multiplications(lambda: system.paint_local(0, blank(1, 3, 512, 1024), blank(1, 3, 512, 1024)))
    face = multiplications(lambda: system.face_generator(blank(1, 6, 128, 128)))
    assert coarse == pytest.approx(110.0e9, rel=0.005)
    assert fine == pytest.approx(150.0e9, rel=0.005)
    assert face == pytest.approx(8.31e9, rel=0.005)


def test_depth_follows_from_the_size():
    assert (DanceConfig().depth, DanceConfig().depth_blocks, DanceConfig().judged_scales) == (4, 9, 3)
    sizes = {64: (2, 3, 1), 128: (3, 6, 1), 256: (4, 9, 2), 512: (4, 9, 3)}
    for side, expected in sizes.items():
        config = DanceConfig(height=side, width=side, enhancer=False)
        assert (config.depth, config.depth_blocks, config.judged_scales) == expected
    with pytest.raises(ConfigError, match="height is 500; it must be a multiple of 32; the nearest: 480 or 512"):
        DanceConfig(height=500)
    with pytest.raises(ConfigError, match="face_size is 100; it must be a multiple of 8; the nearest: 96 or 104"):
        DanceConfig(face_size=100)
    with pytest.raises(ConfigError, match="skeleton is 'anonymous-10'; it must be one with a nose or ears"):
        DanceConfig(skeleton="anonymous-10")
    with pytest.raises(ConfigError, match="to train without, say both: 'none' and 0"):
        DanceConfig(perceptual_network="none")


# --- Equations ----------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("dance", "1")
def test_pairs_are_judged_with_their_poses():
    system = dance(enhancer=False)
    given = batch(3)
    labels, frames = system.draw(given.pose), list(given.video.unbind(2))
    assert torch.equal(system.judged(labels, frames), torch.cat([*labels, *frames], dim=1))
    four = batch(2, frames=4)
    assert system.judged(system.draw(four.pose), list(four.video.unbind(2))).shape == (6, 12, 32, 32)
    scene = Scene(labels, frames, [torch.zeros_like(frames[0])] * 2)
    system.shown = (given, scene)
    terms = player(system, "global", "discriminator").objective(given).terms
    real = system.discriminator(torch.cat([*labels, *frames], dim=1))
    fake = system.discriminator(torch.cat([*labels, *scene.fake], dim=1))
    assert terms["real"].item() == pytest.approx(sum(0.5 * ((one.logits - 1) ** 2).mean().item() for one in real), rel=1e-5)
    assert terms["fake"].item() == pytest.approx(sum(0.5 * (one.logits**2).mean().item() for one in fake), rel=1e-5)


@pytest.mark.equation("dance", "1")
def test_the_second_frame_follows_from_the_first_and_the_gradient_reaches_it():
    system = dance(enhancer=False)
    seen: list[torch.Tensor] = []
    system.generator.register_forward_hook(lambda module, given, made: made.retain_grad() or seen.append(made))
    inputs: list[torch.Tensor] = []
    system.generator.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    labels = system.draw(batch().pose)
    frames = system.chain(labels, system.paint_global)
    assert torch.equal(inputs[0][:, 3:], torch.zeros_like(labels[0]))
    assert torch.equal(inputs[1], torch.cat([labels[1], frames[0]], dim=1))
    frames[1].square().sum().backward()
    assert seen[0].grad.abs().sum() > 0
    alone = dance(enhancer=False, smoothing=False)
    alone.generator.load_state_dict(system.generator.state_dict())
    assert torch.equal(alone.chain(labels, alone.paint_global)[0], frames[0])
    assert not torch.equal(alone.chain(labels, alone.paint_global)[1], frames[1])


@pytest.mark.equation("dance", "2")
def test_the_generators_terms():
    system = dance(feature_weight=10.0, pixel_weight=3.0)
    given = batch()
    turn = player(system, "local", "generator")
    terms = turn.objective(given).terms
    scene = system.perform_local(given)
    real, fake = (system.discriminator(system.judged(scene.labels, frames)) for frames in (scene.real, scene.fake))
    adversarial = sum(((one.logits - 1) ** 2).mean() for one in fake)
    matching = sum(
        (a - b).abs().mean() for r, f in zip(real, fake, strict=True) for a, b in zip(r.features, f.features, strict=True)
    )
    assert terms["adversarial"].item() == pytest.approx(adversarial.item(), rel=1e-5)
    assert terms["feature_matching"].item() == pytest.approx(10 / 2 * matching.item(), rel=1e-5)
    gap = (torch.cat(scene.fake) - torch.cat(scene.real)).abs().mean()
    assert terms["pixels"].item() == pytest.approx(3 * gap.item(), rel=1e-5)
    same = Scene(scene.labels, scene.real, scene.real)
    assert (
        system.frame_terms(same, system.discriminator(system.judged(same.labels, same.real)), 0, 1.0)["feature_matching"] == 0
    )


@pytest.mark.parametrize("stage", ["global", "local"])
def test_the_discriminator_goes_on_from_what_it_said_of_the_photographs(stage: str):
    system, given = dance(), batch()
    judges = list(system.discriminator.scales[1 if stage == "global" else 0 :].parameters())
    system.discriminator.requires_grad_(False)  # the generator's turn
    player(system, stage, "generator").objective(given).total.backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in judges)
    system.discriminator.requires_grad_(True)
    assert system.shown[1].verdicts
    found = []
    for _ in range(2):  # with what it said, and anew
        objective = player(system, stage, "discriminator").objective(given)
        found.append([*objective.terms.values(), *torch.autograd.grad(objective.total, judges)])
        assert not system.shown[1].verdicts
    torch.testing.assert_close(*found)


@pytest.mark.equation("dance", "2")
def test_the_perceptual_term_counts_two_frames_and_half_in_the_first_stage():
    system = dance()
    object.__setattr__(system, "config", replace(TINY, perceptual_network="efficientnet-lite0", perceptual_weight=10.0))
    system._perceptual = lambda made, truth: (made - truth).abs().mean()
    for stage, weight in (("global", 10.0), ("local", 20.0)):
        terms = player(system, stage, "generator").objective(batch()).terms
        scene = (system.perform_global if stage == "global" else system.perform_local)(batch())
        each = torch.stack([(a - b).abs().mean() for a, b in zip(scene.fake, scene.real, strict=True)])
        assert terms["perceptual_efficientnet-lite0"].item() == pytest.approx(weight * each.mean().item(), rel=1e-4)


@pytest.mark.equation("dance", "3")
def test_the_face_is_judged_inside_its_box():
    system = dance()
    given = batch()
    scene = system.perform_face(given)
    corners, visible = system.face_boxes(given.pose)
    assert torch.cat(visible).all()
    in_boxes = [crop(frame, at, 16) for frame, at in zip(given.video.unbind(2), corners, strict=True)]
    assert torch.equal(scene.face.real, torch.stack(in_boxes, dim=1).flatten(0, 1))  # item by item
    assert scene.face.label.shape == scene.face.fake.shape == (4, 3, 16, 16)
    system.shown = (given, scene)
    terms = system.face_discriminator_objective(given).terms
    real = system.face_discriminator(torch.cat([scene.face.label, scene.face.real], dim=1)).logits
    assert terms["real"].item() == pytest.approx(0.5 * ((real - 1) ** 2).mean().item(), rel=1e-5)


def test_beyond_the_picture_there_is_no_face():
    system, given = dance(), batch()
    assert given.pose is not None
    for shift, seen in ((0.0, True), (-200.0, False), (200.0, False)):
        moved = given.pose.clone()
        moved[..., 0] += shift
        _, visible = system.face_boxes(moved)
        assert torch.cat(visible).all() == seen


@pytest.mark.equation("dance", "4")
def test_the_face_generator_adds_a_residual_inside_the_box():
    system = dance()
    given = batch()
    label, frame = system.draw(given.pose)[0], given.video[:, :, 0]
    corners, visible = (parts[0] for parts in system.face_boxes(given.pose))
    changed = system.correct(frame, label, corners, visible)
    box = torch.zeros(2, 32, 32, dtype=torch.bool)
    for row, (top, left) in enumerate(corners.tolist()):
        box[row, top : top + 16, left : left + 16] = True
    assert torch.equal(changed.permute(0, 2, 3, 1)[~box], frame.permute(0, 2, 3, 1)[~box])
    assert not torch.equal(changed, frame)
    residual = system.face_generator(torch.cat([crop(label, corners, 16), crop(frame, corners, 16)], dim=1))
    assert torch.allclose(crop(changed, corners, 16), crop(frame, corners, 16) + residual)
    assert torch.equal(system.correct(frame, label, corners, torch.tensor([False, True]))[0], frame[0])
    nn.init.zeros_(system.face_generator.last[1].weight)
    nn.init.zeros_(system.face_generator.last[1].bias)
    assert torch.equal(system.correct(frame, label, corners, visible), frame)


def test_the_perceptual_network_sees_small_faces_enlarged_and_frames_as_they_are():
    system, sides = dance(), []
    object.__setattr__(system, "config", replace(TINY, perceptual_network="efficientnet-lite0", perceptual_weight=10.0))
    system._perceptual = lambda made, truth: sides.append((made.shape[2:], truth.shape[2:])) or (made - truth).abs().mean()
    player(system, "face", "face_generator").objective(batch())
    player(system, "local", "generator").objective(batch())
    assert sides == [((128, 128), (128, 128)), ((32, 32), (32, 32))]


def test_a_silent_start_corrects_nothing_yet_and_learns():
    given, system = batch(), dance(face_start="zero")
    corners, visible = (parts[0] for parts in system.face_boxes(given.pose))
    label, frame = system.draw(given.pose)[0], given.video[:, :, 0]
    assert torch.equal(system.correct(frame, label, corners, visible), frame)
    trainer = Trainer(system, "face", TrainConfig())
    for _ in range(2):
        trainer.step(given)
    assert not torch.equal(system.correct(frame, label, corners, visible), frame)
    assert all(parameter.abs().sum() > 0 for parameter in system.face_generator.parameters())


@pytest.mark.parametrize(("stage", "half"), [("global", 2), ("local", 1)])
def test_scenes_lie_beside_their_places_in_training(stage: str, half: int):
    """Drawing, truth and still background move together: where nothing is painted, the background's pixels are seen moved."""
    given, system = batch(rows=8), dance(shift=0.25)
    for overlay in (part for part in system.modules() if isinstance(part, Overlay)):
        overlay.background.data.copy_(torch.rand_like(overlay.background))
    last = system.generator.last[1] if stage == "global" else system.enhancer.last[1]
    nn.init.zeros_(last.weight)
    last.bias.data[3] = -100  # the mask
    torch.manual_seed(3)
    steps = draw_steps(0.25, given.video, 32 // half, 32 // half)
    torch.manual_seed(3)
    scene = (system.perform_global if stage == "global" else system.perform_local)(given)
    assert steps.abs().max() <= 8 // half
    assert len(steps.unique()) > 3
    still = (system.generator if stage == "global" else system.enhancer).last[2].background
    real, moved = given.video[:, :, 0], given.pose.clone()
    moved[..., :2] += half * steps.flip(1)[:, None, None]
    wanted = shifted(real, half * steps), system.draw(moved)[0]
    for frame, label, made, row in zip(scene.real[0], scene.labels[0], scene.fake[1], range(8), strict=True):
        assert torch.equal(made, shifted(still, steps[row : row + 1])[0])
        truth, drawing = (one if half == 1 else halved(one) for one in (wanted[0][row : row + 1], wanted[1][row : row + 1]))
        assert torch.allclose(frame, truth[0])
        assert torch.allclose(label, drawing[0])
    assert all(overlay.steps is None for overlay in system.modules() if isinstance(overlay, Overlay))
    with pytest.raises(ConfigError, match=r"shift is 0.25; it must be 0 where background is False"):
        dance(shift=0.25, background=False)


def test_the_faces_box_lies_beside_the_face_in_training_alone():
    given, system = batch(rows=64), dance(face_shift=0.25)
    side, (there, _) = system.config.face_side, system.face_boxes(given.pose)
    torch.manual_seed(0)
    beside, _ = system.face_boxes(given.pose, 0.25)
    apart = [(one - other) for one, other in zip(beside, there, strict=True)]
    inside = [(one > 0).all(dim=1) & (one < 32 - side).all(dim=1) for one in there]
    assert all(gap.abs().max() <= round(side / 4) for gap in apart)
    assert sum(gap[free].unique(dim=0).shape[0] for gap, free in zip(apart, inside, strict=True)) > 8
    shifts = []
    system.face_boxes = lambda pose, shift=0.0: shifts.append(shift) or Dance.face_boxes(system, pose, shift)
    system.perform_face(given)
    system.corrected.fill_(True)
    system.transfer(given.pose)
    assert shifts == [0.25, 0.0]


def test_a_face_and_its_drawing_are_augmented_alike():
    system = dance(face_augment=("translation", "cutout"))
    label, seen = torch.rand(8, 3, 16, 16) + 1, torch.arange(8) < 5
    face = Face(label, label, -label, seen, 1.0)
    together = system.judged_face(face, face.real)
    assert torch.equal(together[:, :3], together[:, 3:])
    assert not torch.equal(together[:, :3], label[:5])
    assert torch.equal(dance().judged_face(face, face.fake), torch.cat([label, -label], dim=1)[:5])
    with pytest.raises(ConfigError, match="face_augment"):
        dance(face_augment=("blur",))
    with pytest.raises(ConfigError, match="face_shift"):
        dance(face_shift=2.0)


# --- Face and hands in the drawings -------------------------------------------------------------------------------------------


def with_parts(rows: int = 2, frames: int = 2) -> Batch:
    """The batch as it is, with a face and hands behind the body's joints."""
    body, generator = batch(rows, frames), torch.Generator().manual_seed(1)
    rest = torch.rand(rows, frames, 112, 3, generator=generator) * torch.tensor([32.0, 32.0, 0.0]) + torch.tensor([0.0, 0, 1])
    return Batch(body.video, pose=torch.cat([body.pose, rest], dim=2))


def test_face_and_hands_are_in_what_the_networks_see():
    """Each changes the drawing where the poses have it, unless the style leaves it out; the body's is as it was."""
    given, body = with_parts(), dance().draw(batch().pose)
    seen = dance(skeleton="coco-18+face+hands").draw(given.pose)
    assert not torch.equal(torch.stack(seen), torch.stack(body))
    for first, stop in ((18, 88), (88, 109), (109, 130)):  # face, left hand, right hand
        hidden = given.pose.clone()
        hidden[:, :, first:stop, 2] = 0
        without = dance(skeleton="coco-18+face+hands").draw(hidden)
        assert not torch.equal(torch.stack(seen), torch.stack(without))
    plain = replace(TINY.style, face=False, hands=False)
    assert torch.equal(torch.stack(dance(skeleton="coco-18+face+hands", style=plain).draw(given.pose)), torch.stack(body))


def test_statistics_and_the_faces_box_come_from_the_body_alone():
    given = with_parts(4)
    whole, body = dance(skeleton="coco-18+face+hands"), dance()
    whole.fit_statistics([given])
    body.fit_statistics([batch(4)])
    assert whole.target_statistics() == body.target_statistics()
    for one, other in zip(whole.face_boxes(given.pose), body.face_boxes(batch(4).pose), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_face_whose_nose_the_body_lacks_is_found_by_its_own():
    """The tip of the nose comes before ears, which are beside the face of somebody who turns."""
    given, system = with_parts(), dance(skeleton="coco-18+face+hands")
    wanted = system.face_boxes(given.pose)
    nose, tip = given.pose[:, :, system.joints.index("Nose")], system.joints.index("NoseBridge3")
    given.pose[:, :, tip] = nose
    given.pose[:, :, system.joints.index("Nose"), 2] = 0
    for one, other in zip(wanted, system.face_boxes(given.pose), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    given.pose[:, :, tip, 2] = 0
    assert not all(torch.equal(a, b) for a, b in zip(wanted[0], system.face_boxes(given.pose)[0], strict=True))


@pytest.mark.parametrize("stage", ["global", "local", "face"])
def test_every_stage_learns_from_poses_with_parts(stage: str):
    trainer = Trainer(dance(skeleton="coco-18+face+hands"), stage, TrainConfig())
    assert all(torch.tensor(value).isfinite() for value in trainer.step(with_parts()).values())


# --- Invariants of Section 12 -------------------------------------------------------------------------------------------------


def test_no_weight_is_stepped_twice_and_the_generator_stands_still_for_the_face():
    system = dance()
    for stage in ("global", "local", "face"):
        trainer = Trainer(system, stage, TrainConfig(precision="fp32"))
        steps = [p for turn in trainer.turns for o in turn.optimizers for group in o.param_groups for p in group["params"]]
        assert len({p.data_ptr() for p in steps}) == len(steps)
        before = {name: value.clone() for name, value in system.named_parameters()}
        trainer.step(batch())
        moved = {name.partition(".")[0] for name, value in system.named_parameters() if not torch.equal(value, before[name])}
        if stage == "face":
            assert moved == {"face_generator", "face_discriminator"}
        else:
            assert moved == {"generator", "discriminator"} | ({"enhancer"} if stage == "local" else set())


def test_the_code_preset_judges_the_whole_frame_for_the_face_and_its_discriminator_joins_late():
    system = dance(face_terms="all", discriminator_joins=1)
    assert "frame_adversarial" in player(system, "face", "face_generator").objective(batch()).terms
    assert player(system, "face", "discriminator").objective(batch()).terms == {}
    player(system, "face", "face_generator").objective(batch())
    assert set(player(system, "face", "discriminator").objective(batch()).terms) == {"real", "fake"}
    assert Dance.presets["code"].config.learning_rate == 2 * Dance.presets["paper"].config.learning_rate


def test_a_batch_without_a_face_passes():
    system = dance()
    given = batch()
    pose = given.pose.clone()
    pose[:, :, [system.joints.index(name) for name in ("Nose", "REar", "LEar")], 2] = 0
    hidden = replace(given, pose=pose)
    assert player(system, "face", "face_generator").objective(hidden).terms == {}
    assert player(system, "face", "face_discriminator").objective(hidden).terms == {}


def test_labels_are_drawn_in_their_range():
    for label_range, least in (("signed", -1), ("unit", 0)):
        drawn = torch.cat(dance(label_range=label_range).draw(batch().pose))
        assert drawn.max() == 1
        assert least <= drawn.min() < least + 0.5


def test_parts_of_a_film_are_the_film():
    system = dance().eval()
    pose = batch(1, frames=6).pose
    with torch.no_grad():
        whole = system.transfer(pose)
        first = system.transfer(pose[:, :4])
        rest = system.transfer(pose[:, 4:], previous=first[:, :, -1])
    assert torch.allclose(torch.cat([first, rest], dim=2), whole, atol=1e-6)


def test_boxes_stay_inside():
    corners = boxes_around(torch.tensor([[0.0, 0.0], [31.0, 5.0], [16.0, 16.0]]), 8, 32, 32)
    assert corners.tolist() == [[0, 0], [2, 24], [12, 12]]


def test_the_target_is_remembered():
    system = dance()
    with pytest.raises(ConfigError, match="has not yet seen its target"):
        system.target_statistics()
    system.stages()["statistics"].run([batch(4, frames=5)])
    known = system.target_statistics()
    assert (known.frames, known.width, known.height, known.skeleton) == (20, 32, 32, "coco-18")
    again = dance()
    again.load_state_dict(system.state_dict())
    assert again.target_statistics() == known


def test_after_the_face_the_generator_is_trained_again_where_asked():
    assert list(dance().stages()) == ["statistics", "global", "local", "face"]
    twice = dance(alternate=2)
    stages = twice.stages()
    assert list(stages)[4:] == ["local-2", "face-2", "local-3", "face-3"]
    assert twice.shares()["local-3"] == 30
    assert stages["local-2"] is stages["local-3"] is stages["local"]
    assert stages["face-3"] is stages["face"]
    assert "global-2" in dance(alternate=1, enhancer=False).stages()
    with pytest.raises(ConfigError, match=r"alternate.*0 where face is False"):
        replace(TINY, alternate=1, face=False)
