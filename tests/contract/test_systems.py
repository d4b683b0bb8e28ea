"""What every system promises, asked of every one of them, every stage and every ability; preset "tiny"."""

import io
from dataclasses import fields, replace
from itertools import combinations

import pytest
import torch

from kinema.core.config import Config, from_mapping, to_mapping
from kinema.core.errors import ConfigError, KinemaError
from kinema.core.sampling import SAMPLERS, Sampling
from kinema.core.system import Fit, System
from kinema.core.tasks import (
    PROTOCOLS,
    Decomposes,
    Diffuses,
    Forecasts,
    Generates,
    Inpaints,
    Interpolates,
    Predicts,
    Recognises,
    Reconstructs,
    Scores,
    Transfers,
    Validates,
    abilities,
)
from kinema.core.types import Batch, ClipShape
from kinema.systems import SYSTEMS
from kinema.training import TrainConfig, Trainer, load, run_fit, save_checkpoint

FIRST_STEPS = 4  # a transformer whose blocks begin as the identity has three layers of zeros, one behind the other
PLAYED = [
    (name, stage_name)
    for name, system in SYSTEMS.items()
    for stage_name, stage in system(system.presets["tiny"].config).stages().items()
    if not isinstance(stage, Fit)
]
CAN = [(name, ability) for name, system in SYSTEMS.items() for ability in abilities(system)]
PRESETS = [(name, preset) for name, system in SYSTEMS.items() for preset in system.presets]
every_system = pytest.mark.parametrize("name", SYSTEMS)
every_played_stage = pytest.mark.parametrize(("name", "stage"), PLAYED)
every_ability = pytest.mark.parametrize(("name", "ability"), CAN)


def tiny(name: str) -> System:
    """Return a fresh system, the same one for every call."""
    torch.manual_seed(5)
    return SYSTEMS[name](SYSTEMS[name].presets["tiny"].config)


def clips(system: System, rows: int = 4, seed: int = 0) -> Batch:
    """Return smooth random clips with everything that a system may need."""
    generator = torch.Generator().manual_seed(seed)
    shape = system.clip_shape
    coarse = torch.rand(rows, 3, 2, 4, 4, generator=generator) * 2 - 1
    video = torch.nn.functional.interpolate(coarse, (shape.frames, shape.height, shape.width), mode="trilinear")
    pose = torch.rand(rows, shape.frames, 18, 3, generator=generator) * torch.tensor([shape.width, shape.height, 1.0])
    mask = torch.rand(rows, 1, shape.frames, shape.height, shape.width, generator=generator)
    device = next(system.parameters()).device
    video, label, pose, mask = (tensor.to(device) for tensor in (video, torch.arange(rows) % 2, pose, mask))
    return Batch(video, label=label, pose=pose, mask=mask, caption=("somebody walks",) * rows)


def trainer_of(system: System, stage: str, device: torch.device | str = "cpu", **settings: object) -> Trainer:
    known = {field.name for field in fields(TrainConfig)}
    preset = {key: value for key, value in system.presets["tiny"].training.items() if key in known}
    return Trainer(system, stage, TrainConfig(**{**preset, **settings}), device)


@pytest.fixture(scope="module")
def trained() -> dict[str, System]:
    """Every system after two steps of every stage: batch norm has statistics, mixtures have components."""
    systems = {}
    for name in SYSTEMS:
        system = tiny(name)
        for stage_name, stage in system.stages().items():
            batches = [clips(system, 8, seed) for seed in range(4)]
            if isinstance(stage, Fit):
                run_fit(system, stage_name, batches, TrainConfig())
                continue
            trainer = trainer_of(system, stage_name, ema_samples=0.0)
            for batch in batches[:2]:
                trainer.step(batch)
        systems[name] = system.eval()
    return systems


def outputs(system: System, ability: str, rows: int = 3) -> list[torch.Tensor]:
    """Return what one ability makes of fixed inputs."""
    seeds, batch = [11, 12, 13][:rows], clips(system, 3)
    video, pose = batch.video[:rows], None if batch.pose is None else batch.pose[:rows]
    with torch.no_grad():
        match system:
            case Generates() if ability == "generate":
                return [system.generate(seeds)]
            case Decomposes() if ability == "streams":
                return list(system.streams(seeds).values())
            case Interpolates() if ability == "interpolate":
                return [system.interpolate(11, 12, rows)]
            case Predicts() if ability == "predict":
                return [system.predict(video[:, :, : system.past_frames], seeds=seeds)]
            case Forecasts() if ability == "forecast" and pose is not None:
                now = system.past_frames
                futures = system.forecast_poses(video[:, :, :now], pose[:, :now], seeds=seeds, futures=2)
                film = torch.cat([pose[:, now - 1 : now], futures[:, 1]], dim=1)
                return [futures, system.render_poses(video[:, :, now - 1], film)]
            case Reconstructs() if ability == "reconstruct":
                return [system.reconstruct(video)]
            case Scores() if ability == "score":
                return [system.score(video)]
            case Recognises() if ability == "recognise":
                return [system.recognise(video)]
            case Transfers() if ability == "transfer":
                return [system.transfer(clips(system, 3).pose[:rows])]
            case Diffuses() if ability == "diffuse":
                shown = [*system.trajectory(seeds, 3), *system.noised(video, 3, seed=11)]
                assert len(shown) == 6
                return [system.diffuse(seeds), *shown]
            case Inpaints() if ability == "inpaint":
                known = torch.zeros_like(video[:, :1])
                known[..., : known.shape[-1] // 2] = 1
                pasted, remembered = (system.inpaint(video, known, seeds=seeds, paste=paste) for paste in (True, False))
                torch.testing.assert_close(pasted, torch.where(known > 0, video, remembered))
                return [pasted, remembered]
            case Validates() if ability == "validate":
                torch.manual_seed(7)
                return [torch.stack(list(numbers.values())) for numbers in validated(system, rows)]
    raise AssertionError(f"the contract suite does not know the ability {ability!r}: add it here")


def validated(system: System, rows: int) -> list[dict[str, torch.Tensor]]:
    """Return what a system measures on fixed clips, for every stage for which it measures anything."""
    assert isinstance(system, Validates)
    return [dict(numbers) for stage in system.stages() if (numbers := system.validate(clips(system, rows), stage))]


@every_system
def test_a_system_introduces_itself(name):
    system = SYSTEMS[name]
    assert system.name == name
    assert system.__doc__
    assert {"tiny", "laptop", "paper"} <= set(system.presets)
    assert next(iter(system.presets)) != "tiny"
    assert all(preset.about.endswith(".") for preset in system.presets.values())
    assert system.paper.title
    assert 1950 < system.paper.year < 2100
    assert all(field.name in system.config_class.__annotations__ or field for field in fields(system.config_class))
    assert tiny(name).stages()
    assert sum(parameter.numel() for parameter in tiny(name).parameters()) < 100_000, "tiny is for tests"


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_settings_survive_the_way_to_a_file_and_back(name, preset):
    config: Config = SYSTEMS[name].presets[preset].config
    assert type(config) is SYSTEMS[name].config_class
    assert from_mapping(SYSTEMS[name].config_class, to_mapping(config)) == config


@every_system
def test_bad_settings_are_refused_with_a_sentence(name):
    config_class = SYSTEMS[name].config_class
    with pytest.raises(ConfigError, match=rf"{config_class.__name__} has no field 'no_such_field'; .*accepted: "):
        from_mapping(config_class, {"no_such_field": 1})
    numbers = [field.name for field in fields(config_class) if field.type in (int, "int")]
    for field in numbers:
        with pytest.raises(ConfigError, match=rf"^{field} is -1; it must be [^\n]+$"):
            replace(SYSTEMS[name].presets["tiny"].config, **{field: -1})
        with pytest.raises(ConfigError, match=field):
            from_mapping(config_class, {field: "many"})


@every_played_stage
def test_every_parameter_of_a_player_learns_and_no_other(name, stage):
    system = tiny(name)
    trainer = trainer_of(system, stage, precision="fp32")
    for turn in trainer.turns:
        for parameter in system.parameters():
            parameter.grad = None
        before = {key: value.clone() for key, value in system.named_parameters()}
        alone = replace(turn, player=replace(turn.player, every=1))
        trainer.turns = (alone,)
        owned = {id(parameter) for parameter in turn.parameters}
        learnt: set[str] = set()
        for _ in range(FIRST_STEPS):  # behind a layer that begins at zero, gradients begin a step later
            numbers = trainer.step(clips(system))
            gradients = {key: value.grad for key, value in system.named_parameters() if value.grad is not None}
            learnt |= {key for key, gradient in gradients.items() if gradient.abs().sum() > 0}
        for key, parameter in system.named_parameters():
            if id(parameter) in owned:
                assert parameter.grad is not None, f"{key} gets no gradient from {turn.player.name}"
            else:
                assert parameter.grad is None, f"{key} gets a gradient from {turn.player.name}"
                assert torch.equal(parameter, before[key]), f"{key} was moved by {turn.player.name}"
        weights = [key for key, parameter in system.named_parameters() if id(parameter) in owned and parameter.dim() > 1]
        assert set(weights) <= learnt
        assert numbers
        assert all(key.startswith(f"{turn.player.name}/") for key in numbers)


@every_system
def test_every_parameter_belongs_to_a_player_of_some_stage(name):
    system = tiny(name)
    players = [player for stage in system.stages().values() if not isinstance(stage, Fit) for player in stage]
    owned = {id(parameter) for player in players for module in player.moves for parameter in module.parameters()}
    assert [key for key, parameter in system.named_parameters() if parameter.requires_grad and id(parameter) not in owned] == []


@every_played_stage
def test_resuming_is_the_same_as_never_having_stopped(name, stage):
    whole, first, second = (trainer_of(tiny(name), stage, ema_samples=8.0, steps=4) for _ in range(3))
    batches = [clips(whole.system, seed=seed) for seed in range(4)]
    expected = [whole.step(batch) for batch in batches]
    assert [first.step(batch) for batch in batches[:2]] == expected[:2]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [second.step(batch) for batch in batches[2:]] == expected[2:]
    for one, other in ((whole.system, second.system), (whole.sampler, second.sampler)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


@every_played_stage
def test_a_batch_of_one_trains_and_refreshes_the_sampler(name, stage):
    trainer = trainer_of(tiny(name), stage, ema_samples=8.0, batch_size=1)
    batch = clips(trainer.system, 1)
    assert all(abs(value) < 1e6 for value in trainer.step(batch).values())
    sampler = trainer.refresh_sampler([batch, batch])
    assert not sampler.training
    assert all(torch.isfinite(value).all() for value in sampler.state_dict().values())


@every_played_stage
def test_bf16_trains_to_nearly_the_same(name, stage):
    results = []
    for precision in ("fp32", "bf16"):
        trainer = trainer_of(tiny(name), stage, precision=precision)
        numbers = trainer.step(clips(trainer.system))
        results.append({key: value for key, value in numbers.items() if not key.endswith(("gradient_norm", "r1"))})
    assert results[0] == pytest.approx(results[1], rel=0.1, abs=0.26)  # an accuracy may flip for one clip in four


@every_system
def test_the_checkpoint_alone_reproduces_every_output(name, trained, tmp_path):
    system = trained[name]
    save_checkpoint(tmp_path / "run", system, stage=list(system.stages())[-1])
    torch.manual_seed(99)
    again = load(tmp_path / "run")
    for ability in abilities(system):
        for one, other in zip(outputs(system, ability), outputs(again, ability), strict=True):
            assert torch.equal(one, other), ability


@every_ability
def test_outputs_are_finite_clips_in_range(name, ability, trained):
    system = trained[name]
    shape = system.clip_shape
    for made in outputs(system, ability):
        assert torch.isfinite(made).all()
        if ability == "score":
            assert made.shape == (3,)
        elif ability == "validate":
            assert made.dim() == 1
        elif ability == "forecast" and made.shape[-1] == 3 and made.shape[1] == 2:
            assert made.shape == (3, 2, system.future_frames, 18, 3)
            assert made[..., 2].min() >= 0
        elif ability == "forecast":
            assert made.shape == (3, 3, 1 + system.future_frames, shape.height, shape.width)
            assert made.abs().max() <= 1
        elif ability == "recognise":
            assert made.shape == (3, system.config.classes)
        else:
            assert made.shape == (3, 3, shape.frames, shape.height, shape.width)
            assert made.min() >= -1
            assert made.max() <= 1


@every_ability
def test_a_sample_depends_on_its_own_seed_and_input_alone(name, ability, trained):
    """Not on the batch it is made in, nor on what was drawn before."""
    system = trained[name]
    torch.manual_seed(1)
    three = outputs(system, ability)
    torch.manual_seed(2)
    if ability == "validate":  # means over a batch; their noise may be that of the whole batch
        assert all(torch.equal(one, other) for one, other in zip(three, outputs(system, ability), strict=True))
        return
    if ability == "interpolate":
        assert torch.equal(system.interpolate(11, 12, 3), three[0])
        return
    for many, single in zip(three, outputs(system, ability, rows=1), strict=True):
        error = (many[:1] - single).abs().max()
        spread = (many[0] - many[1]).abs().max()  # small: these systems have hardly been trained
        assert error <= max(1e-6, 0.01 * spread)
        assert spread > 0, "all samples are the same"


@every_system
def test_what_is_measured_on_held_out_clips_is_a_number_per_name_in_some_played_stage(name, trained):
    system = trained[name]
    if isinstance(system, Validates):
        numbers = validated(system, 4)
        assert numbers
        assert all(value.shape == () for stage in numbers for value in stage.values())


@every_system
def test_labels_are_used_or_refused(name, trained):
    system = trained[name]
    if isinstance(system, Generates) and "label" not in system.needs:
        with pytest.raises(KinemaError, match="label"):
            system.generate([1], label=torch.tensor([0]))


def test_every_ability_is_known_to_this_suite():
    known = {"generate", "streams", "interpolate", "predict", "forecast", "reconstruct", "score", "recognise", "transfer"}
    assert set(PROTOCOLS) == known | {"diffuse", "inpaint", "validate"}


def those_that(ability: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [name for name, can in CAN if can == ability])


@those_that("diffuse")
def test_the_samplers_of_a_diffusion_make_other_clips_of_the_same_seed(name, trained):
    system = trained[name]
    steps = 3
    ways = [Sampling(sampler=sampler, steps=steps, eta=float(sampler == "ddim")) for sampler in SAMPLERS]
    made = [system.diffuse([11], sampling=way) for way in ways]
    assert all(torch.isfinite(clip).all() for clip in made)
    assert all(not torch.equal(one, other) for one, other in combinations(made, 2))
    # What every sampler starts from belongs to the seed.
    first = [system.trajectory([11], 2, sampling=Sampling(sampler=sampler, steps=steps))[0] for sampler in ("ddim", "euler")]
    assert torch.equal(*first)


@those_that("diffuse")
def test_a_diffusion_refuses_what_it_cannot_make(name, trained):
    system = trained[name]
    shape = system.clip_shape
    _, height, width = system.footprint
    assert (shape.height % height, shape.width % width) == (0, 0)
    wrong = ClipShape(shape.frames, shape.height + 1, shape.width)
    with pytest.raises(ConfigError, match=f"{wrong}.*{shape}"):
        system.diffuse([1], shape=wrong)
    larger = ClipShape(shape.frames, shape.height + height, shape.width + 2 * width)
    assert system.diffuse([1], shape=larger).shape[2:] == (larger.frames, larger.height, larger.width)
    for condition, asked in {"label": torch.tensor([0]), "caption": ["somebody walks"]}.items():
        if condition not in system.conditions:
            with pytest.raises(ConfigError, match=condition):
                system.diffuse([1], **{condition: asked})


@those_that("inpaint")
def test_unknown_pixels_are_not_looked_at(name, trained):
    system, video = trained[name], clips(trained[name], 1).video
    known = torch.zeros_like(video[:, :1])
    known[..., : known.shape[-1] // 2] = 1
    other = torch.where(known > 0, video, -video)
    assert torch.equal(system.inpaint(video, known, seeds=[1]), system.inpaint(other, known, seeds=[1]))
