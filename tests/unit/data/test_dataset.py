import io
import json
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.core.shape import ClipShape
from kinema.data import dataset as module
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from small_dataset import make_video, write_dataset

RECORD = ClipRecord("a-1_b", "hall.mp4", 96, 29.97, "walk", "a man walks", "anna", "test", {"speed": [1.5, None]})


def full_clip() -> Clip:
    generator = np.random.default_rng(0)
    return Clip(
        RECORD,
        make_video(1),
        pose=generator.random((4, 18, 3), np.float32),
        mask=generator.integers(0, 256, (4, 6, 8), dtype=np.uint8),
        background=make_video(2)[0],
    )


def clip_with_short_pose() -> Clip:
    clip = full_clip()
    object.__setattr__(clip, "pose", np.zeros((3, 18, 3), np.float32))  # past the shape checks that only tests have
    return clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    clip = full_clip()
    assert write_shard(tmp_path / shard_name(0), [clip]) == [RECORD]
    written = write_info(
        tmp_path, DatasetInfo(4, 6, 8, 29.97, (shard_name(0),), 1, {"black": 2}, {}, ("bow", "walk"), "coco-18")
    )

    dataset = Dataset(tmp_path)
    assert dataset.info == written
    assert dataset.shape == ClipShape(4, 6, 8)
    assert dataset.record(0) == RECORD
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1]
    for name in module.ARRAYS:
        array = dataset.array(0, name)
        assert array is not None
        assert array.dtype == getattr(clip, name).dtype
        np.testing.assert_array_equal(array, getattr(clip, name))
        assert not array.flags.writeable
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["000000.tar", "dataset.json", "shards"]


def test_encoded_clips_are_read_as_pixels_are(tmp_path: Path, folder: Path) -> None:
    encoded, pixels = Dataset(write_dataset(tmp_path / "encoded", people=True, encoded=True)), Dataset(folder)
    assert encoded.arrays == {"video", "pose", "mask"}
    assert pixels.arrays == {"video"}
    for index in range(10):
        video = encoded.video(index)
        np.testing.assert_array_equal(video, pixels.video(index))
        np.testing.assert_array_equal(encoded.array(index, "video"), video)
        assert not video.flags.writeable
        for first, frames in ((0, 2), (1, 2), (3, 1)):
            np.testing.assert_array_equal(encoded.video(index, first, frames), video[first : first + frames])
            np.testing.assert_array_equal(pixels.video(index, first, frames), video[first : first + frames])


def test_encoded_clips_are_in_the_layout_of_webdataset(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard.tar", [full_clip(), Clip(replace(RECORD, key="c2"), make_video(3))], encoded=True)
    with tarfile.open(tmp_path / "shard.tar", "r|") as stream:
        names = [member.name.split(".", 1) for member in stream]
    assert [(key, [name for _, name in group]) for key, group in groupby(names, lambda name: name[0])] == [
        ("a-1_b", ["json", "background.npy", "mask.npy", "pose.npy", "video.mp4"]),
        ("c2", ["json", "video.mp4"]),
    ]


def test_damage_within_an_encoded_clip_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", encoded=True)
    dataset = Dataset(folder)
    start, size = dataset._offsets[module.ENCODED][4].tolist()
    edit_shard(start + size // 2, b"????")(folder)
    with pytest.raises(DataError, match=r"000001\.tar, clip '00004', has a damaged video \(its checksum.*; delete it and run"):
        dataset.video(4, 1, 2)
    np.testing.assert_array_equal(dataset.video(5), make_video(5))
    edit_info(frames=8)(folder)
    with pytest.raises(DataError, match=r"clip '00003', has a damaged video \(it holds 4 frames and not 8\)"):
        Dataset(folder).video(3)


def test_a_clip_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip 'a-1_b' cannot be stored: 4x6x8 at nan frames per second"):
        write_shard(tmp_path / "shard.tar", [replace(full_clip(), record=replace(RECORD, fps=float("nan")))], encoded=True)
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_was_not_made_is_none(folder: Path) -> None:
    assert Dataset(folder).array(0, "mask") is None


def test_the_layout_is_that_of_webdataset(tmp_path: Path) -> None:
    """WebDataset reads a tar in order, cuts a name at its first dot and joins neighbours with the same key."""
    clips = [full_clip(), Clip(replace(RECORD, key="c2"), make_video(3))]
    write_shard(tmp_path / "shard.tar", clips)

    with tarfile.open(tmp_path / "shard.tar", "r|") as stream:
        members = [(*member.name.split(".", 1), stream.extractfile(member).read()) for member in stream]
    samples = [(key, {ext: data for _, ext, data in group}) for key, group in groupby(members, lambda member: member[0])]

    assert [key for key, _ in samples] == ["a-1_b", "c2"]
    assert [set(sample) for _, sample in samples] == [
        {"json", "video.npy", "pose.npy", "mask.npy", "background.npy"},
        {"json", "video.npy"},
    ]
    assert json.loads(samples[0][1]["json"])["caption"] == "a man walks"
    for clip, (_, sample) in zip(clips, samples, strict=True):
        np.testing.assert_array_equal(np.load(io.BytesIO(sample["video.npy"])), clip.video)


def test_clips_of_another_webdataset_writer_are_read(folder: Path) -> None:
    """Long names (PAX headers), folders and further members are no hindrance."""
    path = folder / shard_name(0)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, payload in {
            "json": json.dumps({"key": "k", "source": "s", "first_frame": 0, "fps": 25}).encode(),
            "video.npy": npy(make_video(7)),
            "txt": b"a note",
        }.items():
            member = tarfile.TarInfo(f"{'long' * 40}.folder/clip.{name}")
            member.size = len(payload)
            tar.addfile(member, io.BytesIO(payload))
    write_info(folder, DatasetInfo(4, 6, 8, 25.0, (shard_name(0),), 1))
    np.testing.assert_array_equal(Dataset(folder).video(0), make_video(7))


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, same, other = (write_dataset(tmp_path / name, clips) for name, clips in (("a", 10), ("b", 10), ("c", 9)))
    assert Dataset(one).fingerprint == Dataset(same, "train").fingerprint != Dataset(other).fingerprint


def test_a_split_holds_its_clips_alone(folder: Path) -> None:
    def keys(dataset: Dataset) -> list[str]:
        return [dataset.record(index).key for index in range(len(dataset))]

    assert keys(Dataset(folder, "test")) == ["00000", "00005"]
    train = Dataset(folder, "train")
    assert keys(train) == [f"{number:05d}" for number in range(10) if number % 5]
    assert train.labels is not None
    assert train.labels.tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    np.testing.assert_array_equal(train.video(4), make_video(6))


def test_labels_are_none_unless_every_clip_has_one(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_name(0), [full_clip(), Clip(replace(RECORD, key="b", label=None), make_video(0))])
    write_info(tmp_path, DatasetInfo(4, 6, 8, 25.0, (shard_name(0),), 2, labels=("walk",)))
    assert Dataset(tmp_path).labels is None


def test_more_shards_than_open_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_SHARDS", 1)
    dataset = Dataset(folder)
    views = [dataset.video(number) for number in (9, 0, 5, 1)]
    for number, view in zip((9, 0, 5, 1), views, strict=True):
        np.testing.assert_array_equal(view, make_video(number))


def test_threads_share_the_maps_of_more_shards_than_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock one of them hits upon maps that another is just closing, in nearly every one of these races."""
    monkeypatch.setattr(module, "OPEN_SHARDS", 2)
    dataset = Dataset(write_dataset(tmp_path / "data", 32, per_shard=1))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    try:
        with ThreadPoolExecutor(3) as pool:
            races = [
                pool.submit(lambda step: sum(len(dataset._map(step * n % 32)) > 0 for n in range(10000)), s) for s in (3, 5, 7)
            ]
            assert all(race.result() == 10000 for race in races)
    finally:
        sys.setswitchinterval(before)


def edit_info(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_shard(at: int, value: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with (folder / shard_name(1)).open("r+b") as file:
            file.seek(at)
            file.write(value)

    return edit


def truncate(folder: Path) -> None:
    path = folder / shard_name(1)
    path.write_bytes(path.read_bytes()[:3000])


def repeat_key(folder: Path) -> None:
    (folder / shard_name(1)).write_bytes((folder / shard_name(0)).read_bytes())
    write_info(folder, replace(module.read_info(folder), shards=(shard_name(0), shard_name(1))))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), r"data has no dataset\.json, so it is no finished dataset"),
        (lambda folder: (folder / "dataset.json").write_text("{"), r"dataset\.json is damaged: it is no JSON"),
        (edit_info(format_version=2), r"has format version 2; this kinema reads version 1: update kinema"),
        (edit_info(frames="4"), r"dataset\.json is damaged: frames: Input should be a valid integer"),
        (edit_info(colour=1), r"dataset\.json is damaged: colour: Unexpected"),
        (edit_info(labels=["bow"]), r"000000\.tar, clip '00001', has the label 'walk'; accepted: bow"),
        (edit_info(checksums={}), r"has no checksum of shards/000000\.tar"),
        (lambda folder: (folder / shard_name(1)).unlink(), r"cannot read the shard .*000001\.tar: No such file"),
        (truncate, r"000001\.tar is damaged: it has 3000 bytes and was written with \d+; delete it and run"),
        (edit_shard(100, b"\xff"), r"000001\.tar is damaged: .*; delete it and run the dataset's `kinema prepare` again"),
        (edit_shard(512, b"["), r"000001\.tar, clip '00004', is damaged: JSON: Invalid JSON"),
        (edit_shard(0, b"00004.xson"), r"000001\.tar"),
        (repeat_key, r"000001\.tar, clip '00000', is there twice"),
    ],
)
def test_damage_is_named_when_the_dataset_is_opened(folder: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=sentence):
        Dataset(folder)


def test_damage_within_a_clip_is_named(folder: Path) -> None:
    dataset = Dataset(folder)
    start = int(dataset._offsets["video.npy"][4, 0])
    edit_shard(start + 10, b"{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6, 9, 3), }")(folder)
    with pytest.raises(DataError, match=r"000001\.tar, clip '00004', has a damaged video \(cannot reshape"):
        dataset.video(4)
    edit_shard(start, b"???")(folder)
    with pytest.raises(DataError, match=r"000001\.tar, clip '00004', has a damaged video \(the magic string"):
        dataset.video(4)


def test_a_clip_of_another_shape_is_refused(folder: Path) -> None:
    edit_info(frames=8)(folder)
    with pytest.raises(DataError, match=r"clip '00003', has a video of shape \(4, 6, 8, 3\); dataset\.json says 8x6x8"):
        Dataset(folder).video(3)


def test_verify_finds_one_wrong_pixel(folder: Path) -> None:
    dataset = Dataset(folder)
    dataset.verify()
    position = int(dataset._offsets["video.npy"][4, 0]) + 128 + 17
    edit_shard(position, bytes([255 - dataset.video(4).reshape(-1)[17]]))(folder)
    with pytest.raises(DataError, match=r"000001\.tar is damaged: its SHA-256"):
        dataset.verify()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("missing",), "missing is not a directory"),
        (("data", "tset"), "no split 'tset'; did you mean 'test'"),
        (("train-only", "test"), "train-only has no clip in the split 'test'; it has 4 in 'train'"),
        (("empty",), "empty has no clip; it has none at all"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    write_shard(tmp_path / "train-only" / shard_name(0), (c for c in clips_of(folder) if c.record.split == "train"))
    write_info(tmp_path / "train-only", replace(module.read_info(folder), shards=(shard_name(0),)))
    write_info(tmp_path / "empty", DatasetInfo(4, 6, 8, 25.0, (), 0))
    with pytest.raises(DataError, match=sentence):
        Dataset(tmp_path / arguments[0], *arguments[1:])


def clips_of(folder: Path) -> Iterator[Clip]:
    dataset = Dataset(folder)
    for index in range(5):
        yield Clip(dataset.record(index), dataset.video(index))


@pytest.mark.parametrize(
    ("clips", "sentence"),
    [
        ([Clip(replace(RECORD, key="a.b"), make_video(0))], "clip key 'a.b' must be 1 to 80 letters"),
        ([full_clip(), full_clip()], "two clips of .*shard.tar have the key 'a-1_b'"),
        ([clip_with_short_pose()], r"the pose .* must be float32 of shape \(4, 18, 3\)"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, clips: list[Clip], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        write_shard(tmp_path / "shard.tar", clips)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_what_was_there(folder: Path) -> None:
    before = (folder / shard_name(0)).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write .*000000\.tar: File too large"):
            write_shard(folder / shard_name(0), [Clip(RECORD, make_video(1, 16, 32, 32))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / shard_name(0)).read_bytes() == before
    assert len(list((folder / "shards").iterdir())) == 3


def test_a_dataset_is_not_finished_without_its_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the shard .*000000\.tar"):
        write_info(tmp_path, DatasetInfo(4, 6, 8, 25.0, (shard_name(0),), 1))
    assert list(tmp_path.iterdir()) == []


def test_reading_pixels_imports_no_decoder(folder: Path) -> None:
    reading = f"from kinema.data.dataset import Dataset; Dataset({str(folder)!r}).video(0)"
    subprocess.run([sys.executable, "-c", f"import sys; {reading}; assert 'av' not in sys.modules"], check=True)


def test_preparing_imports_no_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, kinema.data.dataset; assert 'torch' not in sys.modules"], check=True)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_subset_is_a_view_of_some_clips_in_the_order_given(folder: Path) -> None:
    dataset = Dataset(folder)
    part = dataset.subset([7, 2, 2])
    assert len(part) == 3
    assert [part.record(index).key for index in range(3)] == ["00007", "00002", "00002"]
    assert np.array_equal(part.video(0), make_video(7))
    assert part.labels is not None
    assert part.labels.tolist() == [1, 0, 0]
    assert part.fingerprint == dataset.fingerprint
    assert len(dataset) == 10
    assert np.array_equal(dataset.subset([3]).subset([0]).video(0), make_video(3))
