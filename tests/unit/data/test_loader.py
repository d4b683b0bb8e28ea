import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.errors import DataError
from kinema.core.seeds import numpy_generator
from kinema.data.dataset import Clip, Dataset, read_info, shard_name, write_info, write_shard
from kinema.data.loader import Clips, Loader, said_of
from kinema.pose.skeleton import COCO_18
from small_dataset import make_mask, make_pose, make_video, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("loader") / "data", clips=10))


def same(one: Clips, other: Clips) -> bool:
    assert one.label is not None
    assert other.label is not None
    return (
        one.keys == other.keys
        and one.caption == other.caption
        and torch.equal(one.label, other.label)
        and torch.equal(one.frames, other.frames)
    )


def test_every_clip_is_drawn_once_an_epoch_and_every_batch_is_full(dataset: Dataset) -> None:
    batches = list(islice(Loader(dataset, 3), 7))  # epochs of ten clips: the fourth batch is shared by two
    assert [len(clips) for clips in batches] == [3] * 7
    keys = [key for clips in batches for key in clips.keys]
    first, second = keys[:10], keys[10:20]
    assert sorted(first) == sorted(second) == [f"{number:05d}" for number in range(10)]
    assert first != second
    assert first != sorted(first)


def test_the_order_is_a_function_of_the_seed(dataset: Dataset) -> None:
    def keys(seed: int) -> tuple[str, ...]:
        return next(iter(Loader(dataset, 10, seed=seed))).keys

    assert keys(1) == keys(1) != keys(2)
    expected = numpy_generator(1, 0).permutation(10)
    assert keys(1) == tuple(f"{number:05d}" for number in expected)


def test_unshuffled_is_the_order_of_the_dataset(dataset: Dataset) -> None:
    clips = next(iter(Loader(dataset, 3, shuffle=False)))
    assert clips.keys == ("00000", "00001", "00002")
    assert clips.caption == ("sentence 0", "sentence 1", "sentence 2")
    assert clips.label is not None
    assert clips.label.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(clips.frames.numpy(), np.stack([make_video(number) for number in range(3)]))


def test_two_processes_share_the_batches_of_one(dataset: Dataset) -> None:
    whole, first, second = (
        list(islice(Loader(dataset, 4, seed=3, rank=rank, processes=processes, flip=True, frames=2), 6))
        for rank, processes in ((0, 1), (0, 2), (1, 2))
    )
    for batch, left, right in zip(whole, first, second, strict=True):
        assert left.keys + right.keys == batch.keys
        assert torch.equal(torch.cat([left.frames, right.frames]), batch.frames)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 10), st.integers(0, 12), st.integers(0, 5), st.booleans())
def test_resuming_equals_never_having_stopped(dataset: Dataset, batch_size: int, stop: int, seed: int, flip: bool) -> None:
    def loader() -> Loader:
        return Loader(dataset, batch_size, seed=seed, flip=flip, frames=3)

    stopped, resumed = loader(), loader()
    for _ in islice(stopped, stop):
        pass
    resumed.load_state_dict(stopped.state_dict())
    uninterrupted = islice(loader(), stop, stop + 4)
    for one, other in zip(islice(resumed, 4), uninterrupted, strict=True):
        assert same(one, other)


def test_the_state_counts_what_was_delivered_not_what_was_read_ahead(dataset: Dataset) -> None:
    loader = Loader(dataset, 4)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (0, 0)
    places = [(loader.state_dict()["epoch"], loader.state_dict()["position"]) for _ in islice(loader, 5)]
    assert places == [(0, 4), (0, 8), (1, 2), (1, 6), (2, 0)]


def test_a_state_of_other_clips_is_refused(dataset: Dataset) -> None:
    state = Loader(dataset, 4).state_dict()
    for other, name in (
        (Loader(Dataset(dataset.path, "train"), 4), "split None"),
        (Loader(dataset, 4, seed=1), "seed 0"),
        (Loader(dataset, 4, shuffle=False), "shuffle True"),
    ):
        with pytest.raises(DataError, match=f"saved with the {name}"):
            other.load_state_dict(state)


def test_a_clip_is_mirrored_as_a_whole_or_not_at_all(dataset: Dataset) -> None:
    mirrored = {}
    for clips in islice(Loader(dataset, 10, seed=5, flip=True), 2):
        for key, frames in zip(clips.keys, clips.frames.numpy(), strict=True):
            video = make_video(int(key))
            turned = np.array_equal(frames, video[:, :, ::-1])
            assert turned or np.array_equal(frames, video)
            mirrored.setdefault(int(key), []).append(turned)
    for number, turned in mirrored.items():
        draws = [numpy_generator(5, epoch, 1 + number) for epoch in (0, 1)]
        assert turned == [bool((draw.integers(1), draw.random())[1] < 0.5) for draw in draws]
    assert {turn for turns in mirrored.values() for turn in turns} == {True, False}


def test_what_is_left_of_a_clip_is_right_of_it_mirrored(tmp_path: Path) -> None:
    names = ("stand", "turn_left", "turn_right", "look_left")
    folder = write_dataset(tmp_path / "data", 8, labels=names, captions=False)
    records = [replace(Dataset(folder).record(number), caption=f"To the Left, {number}") for number in range(8)]
    for first, shard in zip((0, 4), read_info(folder).shards, strict=True):
        write_shard(folder / shard, [Clip(records[number], make_video(number)) for number in range(first, first + 4)])
    seen = set()
    for batch in islice(Loader(Dataset(folder), 8, flip=True), 6):
        assert batch.label is not None
        assert batch.caption is not None
        for key, frames, label, caption in zip(batch.keys, batch.frames.numpy(), batch.label, batch.caption, strict=True):
            turned = not np.array_equal(frames, make_video(int(key)))
            name = names[int(key) % 4]
            other = {"turn_left": "turn_right", "turn_right": "turn_left"}.get(name, name)
            assert names[int(label)] == (other if turned else name)
            assert caption.startswith("To the Right" if turned else "To the Left")
            seen.add((name, turned))
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("turns left, then RIGHT", "turns right, then LEFT"),
        ("a left-handed wave", "a right-handed wave"),
        ("Leftmost, upright, leftovers, bright", "Rightmost, upright, leftovers, bright"),
        ("arm_left", "arm_right"),
    ],
)
def test_words_for_sides_change_and_no_others(text: str, mirrored: str) -> None:
    assert said_of(text, True) == mirrored
    assert said_of(mirrored, True) == text
    assert said_of(text, False) == text


def test_windows_are_contiguous_and_start_anywhere(dataset: Dataset) -> None:
    starts = set()
    for clips in islice(Loader(dataset, 10, frames=2), 4):
        assert clips.frames.shape == (10, 2, 6, 8, 3)
        for key, frames in zip(clips.keys, clips.frames.numpy(), strict=True):
            video = make_video(int(key))
            matches = [start for start in range(3) if np.array_equal(frames, video[start : start + 2])]
            assert len(matches) == 1
            starts.update(matches)
    assert starts == {0, 1, 2}


def test_an_epoch_is_finite_in_order_and_unaugmented(dataset: Dataset) -> None:
    loader = Loader(dataset, 8, rank=1, processes=2, flip=True, frames=3)
    batches = list(loader.epoch())
    assert [len(clips) for clips in batches] == [4, 4, 2]
    frames = torch.cat([clips.frames for clips in batches]).numpy()
    np.testing.assert_array_equal(frames, np.stack([make_video(number)[:3] for number in range(10)]))
    assert loader.state_dict()["position"] == 0


def test_a_batch_is_normalised_without_moving_its_pixels() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 5, 6, 3).clone()
    frames[1, 2, 3, 4, 1] = 204
    batch = Clips(frames, ("a", "b"), label=torch.tensor([1, 0]), caption=("x", "y")).to_batch()
    assert batch.video.shape == (2, 3, 4, 5, 6)
    assert batch.video.dtype == torch.float32
    assert batch.video.is_contiguous(memory_format=torch.channels_last_3d)
    assert batch.video[0, :, 0, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    assert batch.video[1, 1, 2, 3, 4].item() == pytest.approx(0.6)
    assert batch.carries == {"video", "label", "caption"}


def test_captions_and_labels_are_none_where_there_are_none(tmp_path: Path) -> None:
    clips = next(iter(Loader(Dataset(write_dataset(tmp_path / "data", labels=(), captions=False)), 2)))
    assert clips.label is None
    assert clips.caption is None
    assert clips.to_batch().carries == {"video"}


# --- Poses and masks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("loader") / "people", clips=10, people=True))


def test_poses_and_masks_are_cut_and_mirrored_as_the_video_is(people: Dataset) -> None:
    """By hand: x becomes 7 - x in 8 pixels, and the right wrist, joint 4, takes the place of the left one, joint 7."""
    seen = set()
    for clips in islice(Loader(people, 5, flip=True, frames=2, fields={"video", "pose", "mask"}), 12):
        assert clips.pose is not None
        assert clips.mask is not None
        for row, key in enumerate(clips.keys):
            video, pose, mask = make_video(int(key)), make_pose(int(key)), make_mask(int(key))
            frames = clips.frames[row].numpy()
            first, step = next(
                (first, step)
                for first in range(3)
                for step in (1, -1)
                if np.array_equal(frames, video[first : first + 2, :, ::step])
            )
            seen.add((first, step))
            np.testing.assert_array_equal(clips.mask[row].numpy(), mask[first : first + 2, :, ::step])
            window, found = pose[first : first + 2], clips.pose[row].numpy()
            if step == 1:
                np.testing.assert_array_equal(found, window)
            else:
                np.testing.assert_array_equal(found[:, 7, 0], 7 - window[:, 4, 0])
                np.testing.assert_array_equal(found[:, 7, 1:], window[:, 4, 1:])
                np.testing.assert_array_equal(found, COCO_18.mirrored(window, 8))
    assert len(seen) == 6


def test_nothing_is_read_that_nobody_asked_for(people: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = Dataset.array
    monkeypatch.setattr(Dataset, "array", lambda self, index, name: read.append(name) or original(self, index, name))
    clips = next(iter(Loader(people, 5, fields={"video", "label", "caption"})))
    assert (clips.pose, clips.mask) == (None, None)
    assert read == []
    clips = next(iter(Loader(people, 5, fields={"mask"})))
    assert set(read) == {"mask"}
    assert clips.pose is None
    assert clips.to_batch().carries == {"video", "label", "caption", "mask"}


def test_the_order_and_the_draws_do_not_depend_on_what_is_asked_for(people: Dataset) -> None:
    plain, full = (islice(Loader(people, 4, flip=True, frames=2, fields=fields), 6) for fields in ((), ("pose", "mask")))
    assert all(same(one, other) for one, other in zip(plain, full, strict=True))


def test_an_epoch_delivers_poses_and_masks_unaugmented(people: Dataset) -> None:
    batches = list(Loader(people, 8, flip=True, frames=3, fields=("pose", "mask")).epoch())
    assert [len(clips) for clips in batches] == [8, 2]
    for name, make in (("pose", make_pose), ("mask", make_mask)):
        found = torch.cat([getattr(clips, name) for clips in batches]).numpy()
        np.testing.assert_array_equal(found, np.stack([make(number)[:3] for number in range(10)]))


def test_a_batch_has_poses_in_pixels_and_masks_from_0_to_1(people: Dataset) -> None:
    clips = next(iter(Loader(people, 2, shuffle=False, fields=("pose", "mask"))))
    batch = clips.to_batch()
    assert batch.pose is not None
    assert batch.mask is not None
    np.testing.assert_array_equal(batch.pose.numpy(), np.stack([make_pose(0), make_pose(1)]))
    assert batch.mask.shape == (2, 1, 4, 6, 8)
    np.testing.assert_allclose(batch.mask[1, 0].numpy(), make_mask(1) / 255, rtol=1e-6)


def test_memory_of_poses_and_masks_is_used_again_and_never_while_held(people: Dataset) -> None:
    passing = [
        (clips.pose.data_ptr(), clips.mask.data_ptr())
        for clips in islice(Loader(people, 4, fields=("pose", "mask")), 40)
        if clips.pose is not None and clips.mask is not None
    ]
    assert len(passing) == 40
    assert all(len(set(pointers)) <= 5 for pointers in zip(*passing, strict=True))
    for clips in list(islice(Loader(people, 4, fields=("pose", "mask")), 12)):
        assert clips.pose is not None
        np.testing.assert_array_equal(clips.pose.numpy(), np.stack([make_pose(int(key)) for key in clips.keys]))


def rewrite(folder: Path, **changes: np.ndarray | None) -> Dataset:
    """Give clip 00005, the second of its shard, other arrays."""
    dataset = Dataset(folder)
    clips = [Clip(dataset.record(i), dataset.video(i), dataset.array(i, "pose"), dataset.array(i, "mask")) for i in range(4, 8)]
    write_shard(folder / shard_name(1), [clips[0], replace(clips[1], **changes), *clips[2:]])
    write_info(folder, read_info(folder))
    return Dataset(folder)


@pytest.mark.parametrize("name", ["pose", "mask"])
def test_a_clip_without_what_is_asked_for_is_named(tmp_path: Path, name: str) -> None:
    dataset = rewrite(write_dataset(tmp_path / "data", people=True), **{name: None})
    assert name in dataset.arrays
    with pytest.raises(DataError, match=rf"000001\.tar, clip '00005', has no {name}; prepare the dataset again with one"):
        Loader(dataset, 4, fields=(name,))
    next(iter(Loader(dataset, 10, fields={"pose", "mask"} - {name})))


def test_a_pose_of_other_joints_is_named(tmp_path: Path) -> None:
    dataset = rewrite(write_dataset(tmp_path / "data", people=True), pose=np.zeros((4, 17, 3), np.float32))
    with pytest.raises(DataError, match=r"clip '00005', has a pose of shape \(4, 17, 3\), the first clip one of \(4, 18, 3\)"):
        next(iter(Loader(dataset, 10, fields=("pose",))))


@pytest.mark.parametrize(
    ("skeleton", "sentence"),
    [
        (None, "has no skeleton, so that its poses cannot be mirrored; train without --flip"),
        ("coco-81", "no skeleton 'coco-81'; did you mean 'coco-18'"),
    ],
)
def test_poses_are_mirrored_by_a_known_skeleton_alone(tmp_path: Path, skeleton: str | None, sentence: str) -> None:
    folder = write_dataset(tmp_path / "data", people=True)
    write_info(folder, replace(read_info(folder), skeleton=skeleton))
    with pytest.raises(DataError, match=sentence):
        Loader(Dataset(folder), 4, flip=True, fields=("pose",))
    Loader(Dataset(folder), 4, fields=("pose",))
    Loader(Dataset(folder), 4, flip=True, fields=("mask",))


def test_what_no_batch_carries_is_refused(people: Dataset) -> None:
    with pytest.raises(DataError, match="a batch carries no 'poses'; did you mean 'pose'"):
        Loader(people, 4, fields=("video", "poses"))


# --- Encoded clips ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("loader") / "encoded", clips=10, people=True, encoded=True))


def test_encoded_clips_make_the_same_batches(people: Dataset, encoded: Dataset) -> None:
    settings: dict[str, Any] = {"seed": 4, "flip": True, "frames": 3, "fields": ("pose", "mask")}
    for one, other in zip(islice(Loader(people, 4, **settings), 8), Loader(encoded, 4, **settings), strict=False):
        assert same(one, other)
        assert one.pose is not None
        assert other.pose is not None
        assert torch.equal(one.pose, other.pose)


def test_resuming_on_encoded_clips_equals_never_having_stopped(encoded: Dataset) -> None:
    stopped, resumed = Loader(encoded, 4, flip=True, frames=2), Loader(encoded, 4, flip=True, frames=2)
    for _ in islice(stopped, 3):
        pass
    resumed.load_state_dict(stopped.state_dict())
    for one, other in zip(islice(resumed, 4), islice(stopped, 4), strict=True):
        assert same(one, other)


def test_damage_that_the_thread_meets_names_the_clip(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", encoded=True)
    dataset = Dataset(folder)
    start, size = dataset._offsets["video.mp4"][7].tolist()
    with (folder / shard_name(1)).open("r+b") as file:
        file.seek(start + size // 2)
        file.write(b"????")
    with pytest.raises(DataError, match=r"000001\.tar, clip '00007', has a damaged video"):
        list(islice(Loader(dataset, 10), 1))
    wait_for_threads()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 11}, "a batch of 11 clips cannot be drawn from 10"),
        ({"batch_size": 0}, "a batch of 0 clips"),
        ({"batch_size": 4, "processes": 3}, "process 0 of 3 has no equal share of a batch of 4 clips"),
        ({"batch_size": 4, "processes": 2, "rank": 2}, "process 2 of 2"),
        ({"batch_size": 4, "frames": 5}, "windows of 5 frames cannot be cut from clips of 4"),
        ({"batch_size": 4, "seed": -1}, "the seed is -1; it must be 0 or more"),
    ],
)
def test_what_cannot_be_loaded(dataset: Dataset, settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Loader(dataset, **settings)


def test_an_error_of_the_thread_reaches_the_consumer_and_the_thread_ends(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    dataset = Dataset(folder)
    dataset._maps.clear()
    (folder / shard_name(2)).unlink()
    with pytest.raises(DataError, match=r"cannot map the shard .*000002\.tar"):
        list(islice(Loader(dataset, 10), 1))
    wait_for_threads()


def test_the_thread_ends_with_the_iterator(dataset: Dataset) -> None:
    iterator = iter(Loader(dataset, 4))
    next(iterator)
    assert loader_threads()
    del iterator
    assert not loader_threads()  # nothing is still read by then, at a distance from who asked for it


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kinema-loader")]


def wait_for_threads() -> None:
    deadline = time.monotonic() + 10
    while loader_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_batch_that_is_held_is_never_overwritten(dataset: Dataset) -> None:
    held = list(islice(Loader(dataset, 4, seed=9), 12))
    views = [clips.frames[0, 0] for clips in islice(Loader(dataset, 4, seed=9), 12)]  # hold the memory by a view alone
    for clips, view in zip(held, views, strict=True):
        np.testing.assert_array_equal(clips.frames.numpy(), np.stack([make_video(int(key)) for key in clips.keys]))
        np.testing.assert_array_equal(view.numpy(), make_video(int(clips.keys[0]))[0])


def test_memory_of_batches_is_used_again(dataset: Dataset) -> None:
    assert len({clips.frames.data_ptr() for clips in islice(Loader(dataset, 4), 40)}) <= 5


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """Fails when a clip is kept after it was delivered: 28 MB of clips against 4 MB of slack."""
    shape = (16, 32, 32)
    growth = {}
    for clips in (64, 640):
        dataset = Dataset(write_dataset(tmp_path / str(clips), clips, shape=shape, per_shard=128))
        before = anonymous_memory()
        for _ in Loader(dataset, 8).epoch():
            pass
        for _ in islice(Loader(dataset, 8, flip=True), clips // 8):
            pass
        growth[clips] = anonymous_memory() - before
    assert growth[640] - growth[64] < 4e6


def anonymous_memory() -> int:
    """Bytes of this process that are not pages of a file (those belong to the page cache)."""
    rollup = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(rollup["Anonymous"].split()[0]) * 1024


@pytest.mark.gpu
def test_pinned_batches_reach_the_gpu_whole(people: Dataset) -> None:
    plain, locked = (Loader(people, 4, fields=("pose", "mask"), pin_memory=pinned) for pinned in (False, True))
    for clips, pinned in zip(islice(plain, 20), locked, strict=False):
        batch, on_gpu = clips.to_batch(), pinned.to_batch("cuda")
        for stored, name in (("frames", "video"), ("pose", "pose"), ("mask", "mask")):
            assert getattr(pinned, stored).is_pinned()
            assert torch.equal(getattr(on_gpu, name).cpu(), getattr(batch, name))
