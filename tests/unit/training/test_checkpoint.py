import hashlib
import json
import os
import re
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import kinema
from kinema.core.errors import CheckpointError
from kinema.core.types import ClipShape
from kinema.systems.vgan import VGAN
from kinema.training import checkpoint as module
from kinema.training.checkpoint import (
    load_checkpoint,
    load_resume,
    provenance,
    read_metadata,
    replace_file,
    save_checkpoint,
    save_resume,
)
from unit.training.toys import Duel


@pytest.fixture
def vgan() -> VGAN:
    torch.manual_seed(3)
    return VGAN(VGAN.presets["tiny"].config).eval()


@pytest.fixture
def saved(vgan: VGAN, tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(
        file, vgan, stage="adversarial", steps=12, dataset={"fingerprint": "abc"}, provenance=provenance(["kinema", "train"])
    )
    return file


def parts(file: Path) -> tuple[dict, bytes]:
    """Take a safetensors file apart as its format says: length of the header, header (JSON), data."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(file: Path, change) -> None:
    """Change the metadata of a checkpoint and keep everything else."""
    header, data = parts(file)
    metadata = json.loads(header["__metadata__"]["kinema"])
    change(metadata)
    header["__metadata__"]["kinema"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def signed(change):
    """The same, with a digest that is right for the changed metadata."""

    def both(metadata: dict) -> None:
        change(metadata)
        metadata["digest"] = "as computed"

    return both


def test_one_file_rebuilds_the_system(vgan, saved):
    checkpoint = load_checkpoint(saved)
    assert checkpoint.system.config == vgan.config
    assert not checkpoint.system.training
    for name, value in vgan.state_dict().items():
        assert torch.equal(value, checkpoint.system.state_dict()[name]), name
    assert torch.equal(kinema.load(saved).generate([5]), vgan.generate([5]))
    assert torch.equal(kinema.load(saved.parent).generate([5]), vgan.generate([5]))  # a run directory
    metadata = read_metadata(saved)
    assert metadata == checkpoint.metadata
    assert (metadata.system, metadata.stage, metadata.steps) == ("vgan", "adversarial", 12)
    assert metadata.clip == ClipShape(8, 16, 16)
    assert metadata.dataset == {"fingerprint": "abc"}
    assert metadata.provenance["command"] == ["kinema", "train"]
    assert metadata.provenance["torch"] == torch.__version__


def test_loading_draws_no_random_number(saved):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_checkpoint(saved)
    assert torch.equal(torch.rand(3), expected)


def test_digest_is_the_one_of_the_documented_bytes(saved):
    header, data = parts(saved)
    metadata = json.loads(header.pop("__metadata__")["kinema"])
    digest = metadata.pop("digest")
    own = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    names = {"F32": "torch.float32", "I64": "torch.int64"}
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        own.update(f"{name} {names[header[name]['dtype']]} {tuple(header[name]['shape'])}".encode() + data[start:end])
    assert own.hexdigest() == digest


def test_half_precision_halves_the_file_and_loads_as_float32(vgan, saved, tmp_path):
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, vgan, stage="adversarial", dtype=torch.float16)
    weights = sum(value.numel() for value in vgan.state_dict().values())
    assert saved.stat().st_size - half.stat().st_size == pytest.approx(2 * weights, abs=600)
    system = load_checkpoint(half).system
    for name, value in vgan.state_dict().items():
        assert system.state_dict()[name].dtype == value.dtype
        assert torch.allclose(system.state_dict()[name], value, rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        next(vgan.generator.parameters()).fill_(1e6)
    with pytest.raises(CheckpointError, match=r"not finite in torch\.float16"):
        save_checkpoint(half, vgan, stage="adversarial", dtype=torch.float16)


def test_shared_weights_are_stored_once(tmp_path, monkeypatch):
    class Tied(Duel):
        name = "tied"

        def __init__(self, config=None):
            super().__init__(config)
            self.again = self.nobody

    monkeypatch.setitem(module.SYSTEMS, "tied", Tied)
    tied, file = Tied(), tmp_path / "tied.safetensors"
    save_checkpoint(file, tied, stage="duel")
    header, _ = parts(file)
    assert "nobody.weight" not in header or "again.weight" not in header
    loaded = load_checkpoint(file).system
    assert torch.equal(loaded.again.weight, tied.nobody.weight)
    assert torch.equal(loaded.nobody.weight, tied.nobody.weight)


def test_the_file_is_readable_as_the_umask_says_and_appears_whole(vgan, tmp_path):
    old = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "c.safetensors", vgan, stage="adversarial")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, tmp_path):
    before = saved.read_bytes()

    def full_disk(beside: Path) -> None:
        beside.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors cannot be written: .*No space left on device"):
        replace_file(saved, full_disk)
    assert saved.read_bytes() == before
    assert list(tmp_path.iterdir()) == [saved]
    with pytest.raises(CheckpointError, match="cannot be written"):
        replace_file(tmp_path / "nowhere" / "c", lambda beside: beside.write_bytes(b""))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def cut(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.unlink(), r"does not exist; give a run directory, a checkpoint file or zoo:NAME"),
        (lambda file: cut(file, 0.9), r"is no safetensors file, or was cut short"),
        (lambda file: cut(file, 0.001), r"is no safetensors file, or was cut short"),
        (lambda file: cut(file, 0), r"is no safetensors file, or was cut short"),
        (flip_a_bit, r"was changed after it was written \(its digest does not match\)"),
        (lambda file: rewrite(file, lambda m: m.update(steps=99)), r"was changed after it was written"),
        (lambda file: rewrite(file, lambda m: m.update(format_version=2)), r"has format 2; this kinema reads up to 1"),
        (lambda file: rewrite(file, lambda m: m.pop("config")), r"lacks 'config' in its metadata"),
        (
            lambda file: rewrite(file, lambda m: m.update(system="vgam")),
            r"unknown system 'vgam'; did you mean 'vgan'\?",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(saved, damage, sentence):
    damage(saved)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m["config"].update(widht=3), r"VGANConfig has no field 'widht'; did you mean 'width'"),
        (lambda m: m["config"].update(width=-3), r"width is -3; it must be"),
        (lambda m: m["config"].update(width=8), r"of shape \(4, 3, 4, 4\); vgan with its settings wants \(8, 3, 4, 4\)"),
        (
            lambda m: m["config"].update(generator_streams="one"),
            r"holds 'generator\.background\.\S*', which vgan does not have",
        ),
    ],
)
def test_a_file_that_does_not_fit_its_settings_is_refused(saved, change, sentence, monkeypatch):
    rewrite(saved, signed(change))
    monkeypatch.setattr(module, "digest_of", lambda *_: "as computed")
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(saved)


def test_a_missing_weight_is_named(vgan):
    weights = dict(vgan.state_dict())
    name = max(weights)
    del weights[name]
    with pytest.raises(CheckpointError, match=re.escape(f"c.safetensors lacks the weight {name!r} of vgan")):
        module.refuse_unfitting(vgan, weights, "c.safetensors")


def test_another_system_than_asked_for_is_refused(saved):
    with pytest.raises(CheckpointError, match="holds the system 'vgan'; 'vgan-future' was asked for"):
        load_checkpoint(saved, system_name="vgan-future")


def test_foreign_files_and_empty_directories_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is a directory without a checkpoint\.safetensors"):
        kinema.load(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(module.to_bytes({"a": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a kinema checkpoint"):
        kinema.load(tmp_path / "x.safetensors")


def test_the_zoo_is_read_from_the_package(vgan, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_zoo_directory", lambda: tmp_path)
    with pytest.raises(CheckpointError, match="there is no zoo:hands; accepted: none"):
        kinema.load("zoo:hands")
    save_checkpoint(tmp_path / "vgan-hands.safetensors", vgan, stage="adversarial")
    assert module.zoo() == ["vgan-hands"]
    assert torch.equal(kinema.load("zoo:vgan-hands").generate([1]), vgan.generate([1]))
    with pytest.raises(CheckpointError, match="there is no zoo:vgan-hand; did you mean 'vgan-hands'"):
        kinema.load("zoo:vgan-hand")


def test_what_is_resumed_from_survives_and_damage_is_named(tmp_path):
    file = tmp_path / "resume.pt"
    state = {"trainer": {"steps": 3, "random": {"cpu": torch.get_rng_state()}}, "loader": {"epoch": 1, "position": 8}}
    save_resume(file, state)
    loaded = load_resume(file)
    assert loaded["loader"] == state["loader"]
    assert torch.equal(loaded["trainer"]["random"]["cpu"], state["trainer"]["random"]["cpu"])
    cut(file, 0.5)
    with pytest.raises(CheckpointError, match=r"resume\.pt is damaged"):
        load_resume(file)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_resume(tmp_path / "array.npy")
    with pytest.raises(CheckpointError, match="nothing to resume from"):
        load_resume(tmp_path / "none.pt")


@pytest.mark.parametrize("name", module.zoo())
def test_what_comes_with_kinema_loads_and_moves(name):
    """Trained on procedural clips alone, small, and not a still picture."""
    file = module.resolve(f"zoo:{name}")
    assert file.stat().st_size <= 8e6
    assert "path" not in module.read_metadata(file).dataset
    with torch.no_grad():
        clips = kinema.load(f"zoo:{name}").generate([1, 2])
    assert clips.std(dim=2).mean() > 0.01
    assert (clips[0] - clips[1]).abs().mean() > 0.01
