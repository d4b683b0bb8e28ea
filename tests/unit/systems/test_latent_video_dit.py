"""The compressor of another run, validation, the figure of the process, memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.types import Batch, ClipShape
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.systems.latent_video_dit_compressor import fold
from kinema.training import save_checkpoint

TINY = replace(LatentVideoDiT.presets["tiny"].config, compressor_width=8)


def system_of(**changes: object) -> LatentVideoDiT:
    torch.manual_seed(int(torch.randint(1000, ())))
    system = LatentVideoDiT(replace(TINY, **changes)).eval()
    for parameter in system.parameters():
        nn.init.normal_(parameter, std=0.2)
    return system


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run", system_of(), stage="compressor")
    return tmp_path / "run"


def test_the_compressor_of_another_run_is_taken_over_and_not_trained(run: Path) -> None:
    system = system_of(compressor_from=str(run), hidden=48)
    assert list(system.skipped()) == ["linear_start", "compressor"]
    system.open_files(torch.device("cpu"))
    from kinema.training import load

    other = load(run)
    assert isinstance(other, LatentVideoDiT)
    video = torch.rand(1, 3, 8, 16, 16)
    assert torch.equal(system.reconstruct(video), other.reconstruct(video))


def test_a_run_that_goes_on_has_its_compressor_already(run: Path) -> None:
    begun = system_of(compressor_from=str(run))
    begun.open_files(torch.device("cpu"))
    run.unlink()
    goes_on = system_of(compressor_from=str(run))
    goes_on.load_state_dict(begun.state_dict())
    goes_on.open_files(torch.device("cpu"))
    for name, weight in begun.compressor.state_dict().items():
        assert torch.equal(goes_on.compressor.state_dict()[name], weight)


def test_a_compressor_of_other_settings_is_refused(run: Path) -> None:
    system = system_of(compressor_from=str(run), compressor_width=16)
    with pytest.raises(ConfigError, match=r"other settings \(decoder.0.weight is \(8, 8,.*, here \(16, 8,.*must agree"):
        system.open_files(torch.device("cpu"))


def test_no_compressor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    for place, why in ((tmp_path / "none", "is no checkpoint"), (tmp_path / "text", "is no checkpoint")):
        with pytest.raises(ConfigError, match=why):
            system_of(compressor_from=str(place)).open_files(torch.device("cpu"))


@torch.no_grad()
@pytest.mark.parametrize("linear", ["encoder", "shortcut"])
def test_the_compressor_starts_from_principal_components(linear: str) -> None:
    """Of 8 latent channels in 96 dimensions: nothing linear of that width is nearer to the clips than scikit-learn's PCA."""
    torch.manual_seed(0)
    coarse = torch.randn(24, 3, 4, 4, 4)
    video = nn.functional.interpolate(coarse, (8, 16, 16), mode="trilinear") + 0.1 * torch.randn(24, 3, 8, 16, 16)
    system = LatentVideoDiT(replace(TINY, compressor_linear=linear)).eval()
    numbers = system.fit_linear_start([Batch(video[:10]), Batch(video[10:])])
    system.fit_scale([Batch(video)])

    rows = fold(video, (2, 4, 4)).movedim(1, -1).flatten(0, -2).numpy()
    expected = PCA(8).fit(rows)
    assert numbers["variance_kept"] == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-5)
    made = fold(system.compressor.decode(system.compressor.encode(video)[0]), (2, 4, 4)).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(made, torch.from_numpy(expected.inverse_transform(expected.transform(rows))), atol=1e-4, rtol=0)
    torch.testing.assert_close(system.latent_mean, torch.zeros(8), atol=1e-4, rtol=0)

    latent = system.encode(video)
    assert float(latent.square().mean()) == pytest.approx(1, abs=1e-4)
    variances = latent.var(dim=(0, 2, 3, 4), correction=0).numpy()[::-1]  # scikit-learn begins with the greatest
    shares = expected.explained_variance_ / expected.explained_variance_.sum()
    assert variances / variances.sum() == pytest.approx(shares**0.5 / (shares**0.5).sum(), rel=1e-3)


@torch.no_grad()
def test_footage_of_less_variety_than_the_latent_starts_without_noise() -> None:
    grey = torch.linspace(-1, 1, 6)[:, None, None, None, None].expand(-1, 3, 8, 16, 16)
    system = LatentVideoDiT(TINY).eval()
    assert system.fit_linear_start([Batch(grey)])["variance_kept"] == pytest.approx(1)
    system.fit_scale([Batch(grey)])
    torch.testing.assert_close(system.reconstruct(grey), grey, atol=1e-4, rtol=0)
    black = torch.full((1, 3, 8, 16, 16), -1.0)
    system.fit_linear_start([Batch(black)])
    torch.testing.assert_close(system.compressor.decode(system.compressor.encode(black)[0]), black, atol=1e-4, rtol=0)


def test_validation_repeats_and_knows_a_good_model_from_a_bad_one() -> None:
    system = system_of(condition="label", classes=2)
    batch = Batch(torch.rand(4, 3, 8, 16, 16), label=torch.tensor([0, 1, 0, 1]))
    one, other = system.validate(batch, "transformer"), system.validate(batch, "transformer")
    assert set(one) == {"reconstruction_psnr", "flow", "flow_given_first_frame"}
    assert {name: float(value) for name, value in one.items()} == {name: float(value) for name, value in other.items()}
    assert set(system.validate(batch, "compressor")) == {"reconstruction_psnr"}
    worse = float(one["flow"])
    nn.init.zeros_(system.transformer.out.weight)
    nn.init.zeros_(system.transformer.out.bias)
    assert float(system.validate(batch, "transformer")["flow"]) < worse


def test_the_process_begins_and_ends_where_it_should() -> None:
    system = system_of()
    video = torch.rand(2, 3, 8, 16, 16) * 2 - 1
    forward = system.noised(video, 4, seed=3)
    assert len(forward) == 4
    torch.testing.assert_close(forward[0], system.reconstruct(video))
    backward = system.trajectory([5], 4)
    assert len(backward) == 4
    assert torch.equal(backward[-1], system.diffuse([5]))


@pytest.mark.parametrize(("path", "shares"), [("flow", (0, 0.5, 1)), ("noise", (0, 0.96, 1)), ("edm", (0, 0, 1))])
def test_the_process_reaches_noise_at_even_moments_and_never_outgrows_it(
    path: str, shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = system_of(path=path)
    nn.init.zeros_(system.transformer.out.weight)  # it sees no clip in x_t, which goes where it was going
    nn.init.zeros_(system.transformer.out.bias)
    shown = list[torch.Tensor]()
    monkeypatch.setattr(system, "decode", lambda x, frames: (shown.append(x.detach()), torch.zeros(1, 3, 8, 16, 16))[1])
    noise = system._noise([3], system.clip_shape)()
    system.noised(torch.zeros(1, 3, 8, 16, 16), 3, seed=3)
    for x, share in zip(shown, shares, strict=True):
        assert float(((x - shown[0] * (1 - share)) * noise).mean() / noise.square().mean()) == pytest.approx(share, abs=0.1)
    shown.clear()
    if path == "edm":
        system.trajectory([3], 5, sampling=Sampling("heun", 18))
        assert max(float(x.square().mean().sqrt()) for x in shown) < 1.2


@pytest.mark.parametrize("condition", ["label", "caption"])
def test_the_process_is_of_the_class_or_sentence_that_is_asked_for(condition: str) -> None:
    system = system_of(condition=condition, classes=2 if condition == "label" else 0)
    one, two = torch.tensor([0]), torch.tensor([1])
    if condition == "caption":
        system.fit_vocabulary([Batch(torch.zeros(1, 3, 8, 16, 16), caption=("somebody waves kicks",))])
        one, two = ["somebody waves"], ["somebody kicks"]
    for parameter in system.parameters():
        nn.init.normal_(parameter, std=0.2)
    shown = [system.trajectory([5], 2, **{condition: asked})[-1] for asked in (one, two)]
    assert torch.equal(shown[1], system.diffuse([5], **{condition: two}))
    assert not torch.equal(*shown)


def test_the_shapes_that_it_learns_from_are_its_clips_and_its_buckets() -> None:
    own, image = ClipShape(8, 16, 16), ClipShape(1, 16, 16)
    assert system_of(buckets=("1x16x16",)).trained_shapes == (own, image)
    assert system_of(buckets=("1x16x16",), bucket_share=0.0).trained_shapes == (own,)


def test_memory_grows_with_the_clip() -> None:
    system = system_of()
    one, two = system.sampling_memory(ClipShape(8, 16, 16), 1), system.sampling_memory(ClipShape(16, 16, 16), 1)
    assert two == 2 * one
    assert system.sampling_memory(ClipShape(8, 16, 16), 3) == 3 * one


def test_words_that_nobody_said_are_named() -> None:
    system = system_of(condition="caption")
    assert system.words is not None
    assert "vocabulary" in system.stages()
    system.fit_vocabulary([Batch(torch.zeros(2, 3, 8, 16, 16), caption=("somebody waves", "somebody kicks"))])
    assert system.unknown_words("somebody swims") == ["swims"]
    assert system_of().unknown_words("somebody swims") == []
