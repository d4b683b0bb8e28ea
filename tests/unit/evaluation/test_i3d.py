"""Inception-I3D against counts of its authors and an independent statement of its layers, and the protocol around it."""

import hashlib
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.evaluation.features import open_features
from kinema.evaluation.i3d import CLASSES, I3dFeatures, InceptionI3d
from kinema.evaluation.published import resize
from small_weights import Clip400, Narrow, randomise, write_program, write_state

CPU = torch.device("cpu")

# Carreira and Zisserman, Figure 3, with Szegedy et al. (CVPR 2015), Table 1: the six widths of each block.
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


@pytest.fixture(scope="module")
def network() -> InceptionI3d:
    torch.manual_seed(0)
    network = InceptionI3d()
    randomise(network)
    return network


@pytest.fixture(scope="module")
def file(network: InceptionI3d, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_state(tmp_path_factory.mktemp("weights") / "rgb_imagenet.pt", network, legacy=True)


def clips(count: int, frames: int, size: int = 20) -> Tensor:
    shape = (count, frames, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def same(video: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], fill: float) -> Tensor:
    """TensorFlow's padding, written from its documentation."""
    for dim, (width, step) in enumerate(zip(kernel, stride, strict=True), start=2):
        size = video.shape[dim]
        total = max((math.ceil(size / step) - 1) * step + width - size, 0)
        sides = [0] * 6
        sides[2 * (4 - dim)], sides[2 * (4 - dim) + 1] = total // 2, total - total // 2
        video = F.pad(video, sides, value=fill)
    return video


def stated(state: dict[str, Tensor], video: Tensor) -> Tensor:
    """The network as a list of calls, with maxima padded by minus infinity."""

    def unit(video: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        video = F.conv3d(same(video, tuple(weight.shape[2:]), (stride,) * 3, 0), weight, stride=stride)
        numbers = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(video, *numbers, eps=1e-3))

    def pool(video: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return F.max_pool3d(same(video, kernel, stride, -math.inf), kernel, stride)

    video = pool(unit(video, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    video = pool(unit(unit(video, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for name in BLOCKS:
        if name == "Mixed_4b":
            video = pool(video, (3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            video = pool(video, (2, 2, 2), (2, 2, 2))
        parts = [unit(video, f"{name}.b0")]
        parts += [unit(unit(video, f"{name}.b{branch}a"), f"{name}.b{branch}b") for branch in (1, 2)]
        video = torch.cat([*parts, unit(pool(video, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")], dim=1)
    windows = [video[:, :, time : time + 2].mean(dim=(2, 3, 4)) for time in range(video.shape[2] - 1)]
    logits = [pooled @ state["logits.conv3d.weight"].flatten(1).T + state["logits.conv3d.bias"] for pooled in windows]
    return torch.stack(logits).mean(dim=0)


def test_the_network_has_the_published_size(network: InceptionI3d) -> None:
    """12.7 million parameters; with 57 normalisations' statistics they fill the 50,883,138 bytes of the published file."""
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(network.state_dict()) - len(state) == 57
    size = 4 * sum(tensor.numel() for tensor in state.values())
    assert 0 < 50_883_138 - size < 300 * len(state)  # names, shapes and the file's own index


def test_tensors_have_the_published_names_and_shapes(network: InceptionI3d) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Conv3d_2b_1x1.bn.running_var"] == (64,)
    assert shapes["Conv3d_2c_3x3.conv3d.weight"] == (192, 64, 3, 3, 3)
    assert shapes["logits.conv3d.weight"] == (CLASSES, 1024, 1, 1, 1)
    assert shapes["logits.conv3d.bias"] == (CLASSES,)
    inputs = 192
    for name, (b0, b1a, b1b, b2a, b2b, b3b) in BLOCKS.items():
        wanted = {"b0": (b0, inputs, 1), "b1a": (b1a, inputs, 1), "b1b": (b1b, b1a, 3), "b2a": (b2a, inputs, 1)}
        wanted |= {"b2b": (b2b, b2a, 3), "b3b": (b3b, inputs, 1)}
        for branch, (outputs, width, kernel) in wanted.items():
            assert shapes[f"{name}.{branch}.conv3d.weight"] == (outputs, width, kernel, kernel, kernel)
            assert shapes[f"{name}.{branch}.bn.weight"] == (outputs,)
            assert f"{name}.{branch}.conv3d.bias" not in shapes
        inputs = b0 + b1b + b2b + b3b
    assert inputs == 1024


def test_features_follow_the_published_protocol(network: InceptionI3d, file: Path) -> None:
    """Equal to an independent statement of resize, scale, layers, and logits before the softmax; an odd number of frames."""
    features = open_features("i3d", CPU, weights=file)
    seen = clips(1, 9)
    video = resize(seen.permute(0, 4, 1, 2, 3).float(), 224) * 2 / 255 - 1
    with torch.inference_mode():
        wanted = stated(dict(network.state_dict()), video)
    found = features(seen)
    assert found.shape == (1, CLASSES)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.std().item())
    assert features.name_of("frechet") == "FVD"
    assert features.name_of("kernel") == "KVD"
    assert features.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert any("rgb_imagenet.pt are not verified" in note for note in features.notes)


@pytest.mark.slow
def test_time_is_pooled_over_all_windows(network: InceptionI3d, file: Path) -> None:
    """Twenty frames make three steps and two windows; and a clip's features do not depend on its neighbours."""
    seen = clips(3, 20)
    found = open_features("i3d", CPU, weights=file)(seen)
    video = resize(seen[1:2].permute(0, 4, 1, 2, 3).float(), 224) * 2 / 255 - 1
    with torch.inference_mode():
        wanted = stated(dict(network.state_dict()), video)
    torch.testing.assert_close(found[1:2], wanted, rtol=1e-3, atol=1e-4 * wanted.std().item())


def test_a_program_is_called_as_its_users_call_it(tmp_path: Path) -> None:
    path = write_program(tmp_path / "i3d_torchscript.pt", Clip400)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    features = I3dFeatures(path, digest, CPU)
    seen = clips(3, 9)
    wanted = F.adaptive_avg_pool3d(seen.permute(0, 4, 1, 2, 3)[:, 0].float() / 127.5 - 1, (4, 10, 10)).flatten(1)
    torch.testing.assert_close(features(seen), wanted)
    assert features.preprocessing == "the program's own: rescale=True, resize=True"
    assert features.notes == ()


def test_a_network_travels_as_its_recipe(tmp_path: Path) -> None:
    """A TorchScript program cannot be pickled, and 50 MB per task are too many."""
    path = write_program(tmp_path / "i3d_torchscript.pt", Clip400)
    features = I3dFeatures(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    sent = pickle.dumps(features)
    assert len(sent) < 1000
    arrived, again = pickle.loads(sent), pickle.loads(sent)
    assert torch.equal(arrived(clips(1, 9)), features(clips(1, 9)))
    assert arrived is again  # opened once per process


def test_short_clips_and_other_programs_are_one_sentence(tmp_path: Path) -> None:
    path = write_program(tmp_path / "narrow.pt", Narrow)
    features = I3dFeatures(path, hashlib.sha256(path.read_bytes()).hexdigest(), CPU)
    with pytest.raises(EvaluationError, match="i3d needs clips of 9 frames or more, not 8; or a smaller --stride"):
        features(clips(1, 8))
    with pytest.raises(EvaluationError, match=r"narrow\.pt returned \(2, 7\) and not 400 logits per clip"):
        features(clips(2, 9))
    other = write_program(tmp_path / "other.pt", lambda: torch.nn.Linear(2, 2))
    features = I3dFeatures(other, hashlib.sha256(other.read_bytes()).hexdigest(), CPU)
    with pytest.raises(EvaluationError, match=r"other\.pt does not take \(1, 3, 9, 20, 20\) with rescale, resize") as info:
        features(clips(1, 9))
    assert "\n" not in str(info.value)
