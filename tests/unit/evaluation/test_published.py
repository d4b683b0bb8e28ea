"""Files of weights: what is accepted, and one sentence for what is not; and TensorFlow's resize by hand."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from kinema.core.errors import EvaluationError
from kinema.evaluation import i3d, inception
from kinema.evaluation.published import Published, load_weights, resize
from small_weights import Clip400, write_program, write_state


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)


class Runs:
    """What a pickle can do to who opens it."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def published(path: Path) -> list[Published]:
    return [Published("tiny.pt", hashlib.sha256(path.read_bytes()).hexdigest(), "nowhere.example")]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_known_file_fills_its_network(tmp_path: Path, legacy: bool) -> None:
    one, other = Tiny(), Tiny()
    path = write_state(tmp_path / "tiny.pt", one, legacy=legacy)
    weights = load_weights("tiny", path, published(path))
    filled = weights.fill(other)
    assert torch.equal(other.conv.weight, one.conv.weight)
    assert not filled.training
    assert not any(parameter.requires_grad for parameter in filled.parameters())
    assert weights.sha256 == published(path)[0].sha256
    assert weights.notes == ()


def test_an_unknown_file_is_used_with_a_warning_unless_its_digest_is_given(tmp_path: Path) -> None:
    path = write_state(tmp_path / "mine.pt", Tiny())
    weights = load_weights("tiny", path, [])
    assert "mine.pt are not verified: their SHA-256" in weights.notes[0]
    assert load_weights("tiny", path, [], weights.sha256.upper()).notes == ()
    with pytest.raises(EvaluationError, match=rf"has the SHA-256 {weights.sha256} and --weights-sha256 is 00"):
        load_weights("tiny", path, published(path), "0" * 64)


def test_a_program_runs_only_where_something_vouches_for_it(tmp_path: Path) -> None:
    path = write_program(tmp_path / "program.pt", Clip400)
    digest = published(path)[0].sha256
    with pytest.raises(EvaluationError, match=rf"is a TorchScript program with the SHA-256 {digest}, which is none"):
        load_weights("tiny", path, [])
    assert load_weights("tiny", path, published(path)).program is not None
    assert load_weights("tiny", path, [], digest).program is not None


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"weight": Runs()}, path)
    with pytest.raises(EvaluationError, match="is damaged or holds no weights of PyTorch"):
        load_weights("tiny", path, [])
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Runs()))
    assert (tmp_path / "ran").exists()  # it would have


@pytest.mark.parametrize("damage", ["cut", "nonsense", "empty", "program"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = write_program(tmp_path / "a.pt", Clip400) if damage == "program" else write_state(tmp_path / "a.pt", Tiny())
    content = path.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "nonsense": b"version https://git-lfs.github.com/spec/v1\n",
        "empty": b"",
        "program": content.replace(b"data.pkl", b"data.pkx"),
    }
    path.write_bytes(broken[damage])
    with pytest.raises(
        EvaluationError, match=r"a\.pt is damaged or holds no weights of PyTorch; --features tiny needs"
    ) as info:
        load_weights("tiny", path, [], hashlib.sha256(broken[damage]).hexdigest())
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("what", [{"other": torch.ones(2)}, [torch.ones(2)], torch.ones(2)])
def test_weights_of_another_network_are_one_sentence(tmp_path: Path, what: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(what, path)
    with pytest.raises(EvaluationError, match=r"other\.pt does not hold the weights of Tiny: ") as info:
        load_weights("tiny", path, []).fill(Tiny())
    assert "\n" not in str(info.value)


def test_missing_weights_say_where_they_are(tmp_path: Path) -> None:
    for network in (i3d, inception):
        for path, begins in ((None, "needs --weights FILE"), (tmp_path / "none.pt", "none.pt cannot be read")):
            with pytest.raises(EvaluationError, match=begins) as info:
                load_weights(network.NAME, path, network.PUBLISHED)
            for one in network.PUBLISHED:
                assert f"{one.file} from {one.where} (SHA-256 {one.sha256})" in str(info.value)


def test_digests_begin_as_the_names_of_files_say() -> None:
    """pytorch-fid's file carries its digest in its name; so does the same I3D file among the models of pretorched-x."""
    digests = {one.file: one.sha256 for network in (i3d, inception) for one in network.PUBLISHED}
    assert digests["pt_inception-2015-12-05-6726825d.pth"].startswith("6726825d")
    assert digests["rgb_imagenet.pt"].startswith("2609088c")
    assert all(len(digest) == 64 for digest in digests.values())


def test_resize_samples_corners_as_tensorflow_does() -> None:
    """Twice as wide: every other output is an input, between them is the mean, and the last is repeated."""
    row = torch.tensor([[[0.0, 10.0, 40.0]]])
    assert resize(row.expand(1, 3, 3), 6)[0, 0].tolist() == [0, 5, 10, 25, 40, 40]
    assert resize(row.expand(1, 3, 3).transpose(1, 2), 6)[0, :, 0].tolist() == [0, 5, 10, 25, 40, 40]


def test_resize_does_not_average_what_becomes_smaller() -> None:
    picture = torch.arange(16.0).reshape(1, 4, 4)
    assert resize(picture, 2)[0].tolist() == [[0, 2], [8, 10]]
    assert resize(picture, 4) is picture
    assert resize(torch.tensor([[[0.0, 9.0], [9.0, 18.0]]]), 3)[0].round().tolist() == [[0, 6, 9], [6, 12, 15], [9, 15, 18]]
