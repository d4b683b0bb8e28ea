"""Prepared datasets: a directory of shards that any WebDataset reader understands, read through memory maps.

    dataset.json            what the clips are and how they were made; written last, so a folder without it is unfinished
    shards/000000.tar       per clip: KEY.json, KEY.video.npy and, where made, KEY.pose.npy, KEY.mask.npy, KEY.background.npy;
                            long or large clips have KEY.video.mp4 (see `kinema.data.lossless`) instead of KEY.video.npy

| member | array |
|---|---|
| video | uint8, T H W 3 |
| pose | float32, T J 3: x and y in pixels, confidence in [0, 1] |
| mask | uint8, T H W: how much of a pixel is foreground, 255 is all of it |
| background | uint8, H W 3 |

A clip of pixels is never copied before the batch: `Dataset.video` is a view of the mapped shard, found through an index of
offsets that is made when the dataset is opened (about 50 microseconds per clip).
"""

import copy
import hashlib
import io
import json
import mmap
import os
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from pydantic import ConfigDict, TypeAdapter, ValidationError

from kinema.core.errors import DataError, MediaError, accepted
from kinema.core.shape import ClipShape

FORMAT_VERSION = 1
INFO_NAME = "dataset.json"
MEASURES_NAME = "measures"  # folder with features of the clips, which evaluation makes once and finds again
ENCODED = "video.mp4"  # member in place of video.npy
COPIED_BYTES = 2**20  # written at a time; tarfile's 16 KiB make many small writes of a clip
OPEN_SHARDS = 256  # each map holds a file descriptor, of which a process usually has 1024

Split = Literal["train", "test"]
Beside = Literal["pose", "mask", "background"]
ArrayName = Literal["video", Beside]
ARRAYS: tuple[ArrayName, ...] = get_args(ArrayName)

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")  # WebDataset splits names at the first dot; a tar header holds 100 bytes
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class ClipRecord:
    """What is known about a clip besides its pixels; the member ``KEY.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    key: str
    """Name within the dataset: letters, digits, ``_`` and ``-``."""
    source: str
    """The footage it was cut from."""
    first_frame: int
    """Index of its first frame in the source, at the clip's frame rate."""
    fps: float
    """Frames per second."""
    label: str | None = None
    """Class; one of `DatasetInfo.labels`."""
    caption: str | None = None
    """One sentence about what happens."""
    group: str | None = None
    """Person, scene or tape: clips of one group are never in two splits."""
    split: Split = "train"
    """Learn from it, or judge with it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Anything else, as JSON values."""

    def shares_frames(self, other: "ClipRecord", frames: int) -> bool:
        """Tell whether two clips of so many frames each have one in common; made-up ones all begin at one frame and do not."""
        near = 0 < abs(self.first_frame - other.first_frame) < frames
        return self.key == other.key or (self.source == other.source and near)


@dataclass(frozen=True)
class Clip:
    """A clip to be written.

    Attributes:
        record: what is known about it.
        video: pixels, RGB.
        pose: joints per frame: x and y in pixels, confidence in [0, 1].
        mask: how much of a pixel is foreground; 255 is all of it.
        background: the picture behind the foreground.
    """

    record: ClipRecord
    video: UInt8[np.ndarray, "T H W 3"]
    pose: Float32[np.ndarray, "T J 3"] | None = None
    mask: UInt8[np.ndarray, "T H W"] | None = None
    background: UInt8[np.ndarray, "H W 3"] | None = None


@dataclass(frozen=True)
class Checksum:
    """Size and SHA-256 of a shard."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset holds and how it was made; the file ``dataset.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    frames: int
    """Frames of every clip."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float
    """Nominal frames per second; a clip's own rate is in its record."""
    shards: tuple[str, ...]
    """Shards relative to the dataset, in order; see `shard_name`."""
    kept: int
    """Clips that were written."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> candidates that were refused for it."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """Source -> "kept" or a reason -> candidates."""
    labels: tuple[str, ...] = ()
    """Class names; a class index is a position in them."""
    skeleton: str | None = None
    """Name of the skeleton of the poses."""
    people: dict[str, str] = field(default_factory=dict)
    """Source whose poses hold several people -> who was taken, and how to take another."""
    ignored: tuple[str, ...] = ()
    """Files in the folders of footage that are none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings it was prepared with, as JSON values."""
    checksums: dict[str, Checksum] = field(default_factory=dict)
    """Shard -> size and SHA-256; filled in by `write_info`."""
    format_version: int = FORMAT_VERSION
    """Of this file and the shards."""


_RECORD = TypeAdapter(ClipRecord)
_INFO = TypeAdapter(DatasetInfo)


def rates_in_words(rates: Mapping[float, int]) -> str:
    """Return rates with their numbers of clips as people read them: ``25``, or ``10 to 30, mostly 25`` where clips differ."""
    low, high, most = (f"{rate:g}" for rate in (min(rates), max(rates), max(rates, key=lambda rate: (rates[rate], rate))))
    return low if low == high else f"{low} to {high}, mostly {most}"


def shard_name(number: int) -> str:
    """Return the name of a shard relative to its dataset, such as ``shards/000007.tar``."""
    return f"shards/{number:06d}.tar"


def write_shard(path: Path | str, clips: Iterable[Clip], *, encoded: bool = False) -> list[ClipRecord]:
    """Write clips as one shard, beside its final name first, and return their records.

    Args:
        path: the tar file; its folder is made where missing, an existing file is replaced.
        clips: read one by one, so that a generator needs the memory of one clip.
        encoded: store videos as lossless H.264 instead of as pixels.

    Raises:
        DataError: for a key that is repeated or holds other characters than letters, digits, ``_`` and ``-``, an array of
            the wrong kind, a video that cannot be encoded, or a file that cannot be written.
    """
    path = Path(path)
    records: dict[str, ClipRecord] = {}
    kind = tarfile.USTAR_FORMAT
    with written_beside(path) as file, tarfile.TarFile(None, "w", file, kind, copybufsize=COPIED_BYTES) as tar:
        for clip in clips:
            key = clip.record.key
            if not _KEY.fullmatch(key):
                raise DataError(f"clip key {key!r} must be 1 to 80 letters, digits, '_' or '-'")
            if key in records:
                raise DataError(f"two clips of {path} have the key {key!r}; keys must be unique")
            _add(tar, f"{key}.json", _RECORD.dump_json(clip.record))
            for name in reversed(ARRAYS):  # video last: small members lie together, which makes the index quick to read
                if (array := getattr(clip, name)) is not None:
                    _check_array(key, name, array, clip.video.shape)
                    if encoded and name == "video":
                        _add(tar, f"{key}.{ENCODED}", _encode(clip))
                        continue
                    payload = io.BytesIO()
                    np.save(payload, np.ascontiguousarray(array), allow_pickle=False)
                    _add(tar, f"{key}.{name}.npy", payload.getvalue())
            records[key] = clip.record
    return list(records.values())


def write_info(folder: Path | str, info: DatasetInfo) -> DatasetInfo:
    """Finish a dataset: measure its shards and write ``dataset.json``.

    Returns:
        `info` with the checksums filled in.

    Raises:
        DataError: when a shard is missing or a file cannot be read or written.
    """
    folder = Path(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = pool.map(_checksum, (folder / name for name in info.shards))
        info = replace(info, checksums=dict(zip(info.shards, sums, strict=True)))
    with written_beside(folder / INFO_NAME) as file:
        file.write(_INFO.dump_json(info, indent=2) + b"\n")
    return info


def read_info(folder: Path | str) -> DatasetInfo:
    """Read ``dataset.json``.

    Raises:
        DataError: when there is none, or it is of a newer format or damaged.
    """
    folder = Path(folder)
    path = folder / INFO_NAME
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory; give the dataset that `kinema prepare ... --out DATA` made")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{folder} has no {INFO_NAME}, so it is no finished dataset; run its `kinema prepare` again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    try:
        version = json.loads(text)["format_version"]
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path} is damaged: it is no JSON object with a format_version; prepare the dataset again") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}; this kinema reads version {FORMAT_VERSION}: update kinema")
    return _parse(_INFO, text, str(path))


class Dataset:
    """A prepared dataset, read through memory maps.

    Args:
        path: the directory.
        split: keep the clips of one split; None keeps all.

    Raises:
        DataError: when the directory is no finished dataset, is of a newer format, has a missing or damaged shard, or has no
            clip in the split.
    """

    def __init__(self, path: Path | str, split: str | None = None) -> None:
        if split is not None and split not in get_args(Split):
            raise DataError(f"no split {split!r}; {accepted(split, get_args(Split))}")
        self.path = Path(path)
        self.split = split
        self.info = read_info(self.path)
        self._maps: dict[int, mmap.mmap] = {}
        self._mapping = threading.Lock()  # a run looks at clips while its loader reads ahead
        self._read_index()

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def shape(self) -> ClipShape:
        """Shape of every clip."""
        return ClipShape(self.info.frames, self.info.height, self.info.width)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of every split: the checksums of the shards in order and the class names."""
        content = [[self.info.checksums[name].sha256 for name in self.info.shards], self.info.labels]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def labels(self) -> Int64[np.ndarray, "N"] | None:
        """Class index of every clip; None unless every clip has a class."""
        return self._labels if self.info.labels and (self._labels >= 0).all() else None

    @property
    def captioned(self) -> bool:
        """Whether every clip has a caption."""
        return bool(self._captioned.all())

    @cached_property
    def arrays(self) -> frozenset[ArrayName]:
        """Names of the arrays that some clip has."""
        members = {name: [f"{name}.npy"] for name in ARRAYS} | {"video": ["video.npy", ENCODED]}
        return frozenset(name for name in ARRAYS if any(self._offsets[member][:, 1].any() for member in members[name]))

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """Return a view of some clips, in the order given.

        Args:
            indices: of the clips, at least one, each below the number of clips.
        """
        part = copy.copy(self)
        part.__dict__.pop("arrays", None)  # another set of clips may have other arrays
        rows = np.asarray(indices, np.int64)
        part._shards, part._labels, part._captioned = self._shards[rows], self._labels[rows], self._captioned[rows]
        part._offsets = {member: positions[rows] for member, positions in self._offsets.items()}
        return part

    def require(self, name: Beside) -> None:
        """Refuse the dataset where an array was not made for every clip, or the first one does not fit its video.

        Raises:
            DataError: naming the first clip without it, or the array that does not fit.
        """
        without = np.flatnonzero(self._offsets[f"{name}.npy"][:, 1] == 0)
        if len(without):
            raise DataError(f"{self._place(int(without[0]))} has no {name}; prepare the dataset again with one for every clip")
        self.alike(0, name)

    def record(self, index: int) -> ClipRecord:
        """Return what is known about a clip."""
        return _parse(_RECORD, self._payload(index, "json").tobytes(), f"{self._shard_of(index)}, clip {index},")

    def video(self, index: int, first: int = 0, frames: int | None = None) -> UInt8[np.ndarray, "T H W 3"]:
        """Return the pixels of a clip, or of a window of it, read-only; unless it is encoded, a view of the mapped shard.

        Args:
            index: of the clip.
            first: first frame of the window.
            frames: length of the window; None goes on to the end.
        """
        if len(payload := self._payload(index, ENCODED)):
            return self._decode(index, payload, first, frames)
        video = self._stored(index, "video")
        if video is None or video.shape != (self.info.frames, self.info.height, self.info.width, 3):
            found = "no video" if video is None else f"a video of shape {video.shape}"
            raise DataError(f"{self._place(index)} has {found}; {INFO_NAME} says {self.shape}: prepare the dataset again")
        return video[first : None if frames is None else first + frames]

    def array(self, index: int, name: ArrayName) -> np.ndarray | None:
        """Return an array of a clip, read-only, or None where it was not made."""
        return self.video(index) if name == "video" else self._stored(index, name)

    def _stored(self, index: int, name: ArrayName) -> np.ndarray | None:
        """Return an array that is stored as such, as a view of the mapped shard."""
        payload = self._payload(index, f"{name}.npy")
        if not len(payload):
            return None
        try:
            start = 10 + int.from_bytes(payload[8:10], "little")
            dtype, shape = _parse_header(payload[:start].tobytes())
            return payload[start:].view(dtype).reshape(shape)
        except ValueError as error:
            raise DataError(f"{self._place(index)} has a damaged {name} ({error}); {_REPAIR}") from None

    def _decode(self, index: int, payload: np.ndarray, first: int, frames: int | None) -> UInt8[np.ndarray, "T H W 3"]:
        from kinema.data.lossless import decode_clip  # here: who reads pixels alone needs no PyAV

        try:
            video = decode_clip(payload.tobytes(), self.shape, first, frames)
        except MediaError as error:
            raise DataError(f"{self._place(index)} has a damaged video ({error}); {_REPAIR}") from None
        video.flags.writeable = False
        return video

    def alike(self, index: int, name: Beside) -> np.ndarray:
        """Return an array that every clip has in the shape that it has in the first one, so that clips can be batched.

        Raises:
            DataError: it was not made, does not fit the video, or is unlike that of the first clip.
        """
        array, first = self.array(index, name), self.array(0, name)
        if array is None or first is None:
            raise DataError(f"{self._place(index if array is None else 0)} has no {name}; {_REPAIR}")
        if array.dtype != first.dtype or array.shape != first.shape or index == 0:
            _check_array(self.record(index).key, name, array, (self.info.frames, self.info.height, self.info.width, 3))
        if array.shape != first.shape:
            raise DataError(
                f"{self._place(index)} has a {name} of shape {array.shape}, the first clip one of {first.shape}; "
                "prepare the dataset again"
            )
        return array

    def verify(self) -> None:
        """Read every byte of every shard and compare it with its checksum.

        Raises:
            DataError: naming the first shard that differs.
        """
        for name, written in self.info.checksums.items():
            if _checksum(self.path / name) != written:
                raise DataError(f"{self.path / name} is damaged: its SHA-256 is not the one in {INFO_NAME}; {_REPAIR}")

    def _read_index(self) -> None:
        shards: list[int] = []
        labels: list[int] = []
        captioned: list[bool] = []
        offsets: dict[str, list[tuple[int, int]]] = {
            name: [] for name in ("json", ENCODED, *(f"{name}.npy" for name in ARRAYS))
        }
        numbers = {label: number for number, label in enumerate(self.info.labels)}
        splits: Counter[str] = Counter()
        keys: set[str] = set()
        for shard, name in enumerate(self.info.shards):
            self._check_size(name)
            for key, members in _members(self.path / name).items():
                place = f"{self.path / name}, clip {key!r},"
                if "json" not in members or key in keys:
                    raise DataError(f"{place} {'is there twice' if key in keys else 'has no json'}; {_REPAIR}")
                keys.add(key)
                offset, size = members["json"]
                record = _parse(_RECORD, self._map(shard)[offset : offset + size], place)
                splits[record.split] += 1
                if self.split not in (None, record.split):
                    continue
                if record.label is not None and record.label not in numbers:
                    raise DataError(f"{place} has the label {record.label!r}; {accepted(record.label, numbers)}")
                shards.append(shard)
                labels.append(-1 if record.label is None else numbers[record.label])
                captioned.append(record.caption is not None)
                for member, positions in offsets.items():
                    positions.append(members.get(member, (0, 0)))
        if not shards:
            held = ", ".join(f"{count} in {split!r}" for split, count in splits.items()) or "none at all"
            raise DataError(f"{self.path} has no clip{f' in the split {self.split!r}' if self.split else ''}; it has {held}")
        self._shards = np.array(shards, np.int32)
        self._labels = np.array(labels, np.int64)
        self._captioned = np.array(captioned, np.bool_)
        # Arrays of numbers, not objects: an index of a million clips stays within some 100 MB.
        self._offsets = {member: np.array(positions, np.int64) for member, positions in offsets.items()}

    def _check_size(self, name: str) -> None:
        path = self.path / name
        if name not in self.info.checksums:
            raise DataError(f"{self.path / INFO_NAME} has no checksum of {name}; prepare the dataset again")
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"cannot read the shard {path}: {error.strerror}; {_REPAIR}") from None
        if size != (written := self.info.checksums[name].bytes):
            raise DataError(f"{path} is damaged: it has {size} bytes and was written with {written}; {_REPAIR}")

    def _map(self, shard: int) -> mmap.mmap:
        with self._mapping:
            mapped = self._maps.get(shard)
            if mapped is None:
                while len(self._maps) >= OPEN_SHARDS:  # views keep their map alive by themselves
                    self._maps.pop(next(iter(self._maps)))
                path = self.path / self.info.shards[shard]
                try:
                    with path.open("rb") as file:
                        mapped = self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                except (OSError, ValueError) as error:
                    raise DataError(f"cannot map the shard {path}: {error}; {_REPAIR}") from None
            return mapped

    def _payload(self, index: int, member: str) -> UInt8[np.ndarray, "bytes"]:
        offset, size = self._offsets[member][index].tolist()
        return np.frombuffer(self._map(int(self._shards[index])), np.uint8, size, offset)

    def _shard_of(self, index: int) -> Path:
        return self.path / self.info.shards[self._shards[index]]

    def _place(self, index: int) -> str:
        return f"{self._shard_of(index)}, clip {self.record(index).key!r},"


_REPAIR = "delete it and run the dataset's `kinema prepare` again"


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` and rename it into place when the body ends well."""
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, payload: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time and no owner: the same clips make the same bytes
    member.size = len(payload)
    tar.addfile(member, io.BytesIO(payload))


def _encode(clip: Clip) -> bytes:
    from kinema.data.lossless import encode_clip  # here: who reads pixels alone needs no PyAV

    try:
        return encode_clip(clip.video, clip.record.fps)
    except MediaError as error:
        raise DataError(f"clip {clip.record.key!r} cannot be stored: {error}") from None


def _check_array(key: str, name: ArrayName, array: np.ndarray, video: tuple[int, ...]) -> None:
    wanted = {
        "video": (*video[:3], 3),
        "pose": (video[0], *array.shape[1:2], 3),
        "mask": video[:3],
        "background": (*video[1:3], 3),
    }
    dtype = np.float32 if name == "pose" else np.uint8
    if array.dtype != dtype or array.shape != wanted[name] or array.size == 0:
        raise DataError(
            f"the {name} of clip {key!r} is {array.dtype} of shape {array.shape}; "
            f"beside a video of shape {video} it must be {np.dtype(dtype)} of shape {wanted[name]}"
        )


def _checksum(path: Path) -> Checksum:
    try:
        with path.open("rb") as file:
            return Checksum(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"cannot read the shard {path}: {error.strerror}; {_REPAIR}") from None


def _members(shard: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Return key -> extension -> (offset, size) of the members of a shard, split at the first dot as WebDataset does."""
    clips: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                clips.setdefault(folder + slash + key, {})[extension] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} is damaged: {error}; {_REPAIR}") from None
    return clips


def _parse(adapter: TypeAdapter, text: bytes, place: str) -> Any:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise DataError(f"{place} is damaged: {where}: {first['msg']}; {_REPAIR}") from None


@lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Parse the header of an npy file; clips of one shape share one, so that it is parsed once."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("unknown npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError(f"{dtype} in {'Fortran' if fortran else 'C'} order")
    return dtype, shape
