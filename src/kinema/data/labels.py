"""Classes, captions, groups and splits of footage: from folder names or from a table."""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kinema.core.errors import DataError, accepted
from kinema.data.sources import STILL_FPS, Source

NAMINGS = {
    "folder": "the folder it is in",
    "parent2": "the folder above that",
    "name": "its own name without suffix",
    "prefix": "its own name up to the first '_'",
    "take": "its own name up to the last '_', UCF101's groups",
    "source": "itself",
}
"""How a path names a class or group -> what it takes."""

NAME_COLUMNS = ("source", "clip", "file", "path", "name")
GROUP_COLUMNS = ("group", "subject", "person")
TABLE_SUFFIXES = (".csv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Naming:
    """Where the words about footage come from.

    Attributes:
        labels: one of `NAMINGS` or a table; None for no classes.
        captions: a table; None takes captions from the labels' table, if it has any.
        group: one of `NAMINGS` or a table; None for no groups.
    """

    labels: str | None = None
    captions: str | None = None
    group: str | None = None


def annotate(sources: Sequence[Source], naming: Naming) -> list[Source]:
    """Return the sources with their label, caption and group.

    A source that a table of labels leaves out keeps the label None.

    Raises:
        DataError: for a table that cannot be read, lacks a column, names unknown clips or one clip twice, or for a source
            that a table of groups leaves out.
    """
    labels, captions = _words(sources, naming.labels, ("label",)), _words(sources, naming.captions, ("caption",))
    if naming.labels and naming.labels not in NAMINGS and naming.captions is None:
        captions = _words(sources, naming.labels, ("caption",), required=False)
    groups = _words(sources, naming.group, GROUP_COLUMNS)
    alone = [source.name for source in sources if naming.group and source.name not in groups]
    if alone:
        raise DataError(
            f"{naming.group} gives no group for {_first_of(alone)}; every source needs one for a split without leaks"
        )
    return [
        replace(source, label=labels.get(source.name), caption=captions.get(source.name), group=groups.get(source.name))
        for source in sources
    ]


def split_by_group(sources: Sequence[Source], test_fraction: float) -> list[Source]:
    """Put whole groups into the test split; a source without a group is its own.

    Groups are taken in the order of a hash of their name while they fit into the wanted share of frames, and the smallest one
    where none fits, so that both splits are never empty and the choice depends on nothing else.

    Args:
        sources: with groups and numbers of frames (of bytes, where a number of frames is unknown).
        test_fraction: wanted share of the test split, in [0, 1).

    Raises:
        DataError: all footage is one group.
    """
    if test_fraction == 0:
        return list(sources)
    known = all(source.frames for source in sources)
    sizes: defaultdict[str, int] = defaultdict(int)
    for source in sources:
        sizes[_group(source)] += (source.frames or 0) if known else source.bytes
    if len(sizes) < 2:
        alone = next(iter(sizes), "nothing")
        raise DataError(f"a split needs at least 2 groups (or sources), but all footage is {alone!r}; or --split-by time")
    wanted, test = test_fraction * sum(sizes.values()), set[str]()
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sum(sizes[name] for name in test) + sizes[group] <= wanted:
            test.add(group)
    test = test or {min(sizes, key=lambda name: (sizes[name], name))}
    return [replace(source, split="test" if _group(source) in test else "train") for source in sources]


def split_by_time(sources: Sequence[Source], test_fraction: float, fps: float | None) -> list[Source]:
    """Hold out the last part of every source, for footage of one camera; no frame is in both splits.

    Args:
        sources: with numbers of frames.
        test_fraction: share of the test split, in [0, 1).
        fps: of sources that say none.

    Raises:
        DataError: the length of a source is not known before it is read.
    """
    if test_fraction == 0:
        return list(sources)
    endless = [source.name for source in sources if not source.frames]
    if endless:
        raise DataError(f"{_first_of(endless)} does not say how long it is; convert it to mp4, or --split-by group")
    lengths = [(source.frames or 0) / (source.fps or fps or STILL_FPS) for source in sources]
    return [replace(source, border=(1 - test_fraction) * length) for source, length in zip(sources, lengths, strict=True)]


def split_by_files(sources: Sequence[Source], files: Sequence[Path]) -> tuple[list[Source], list[Source]]:
    """Split as published lists say: UCF101's trainlist01.txt, testlist01.txt and classInd.txt, or files like them.

    Args:
        sources: with labels and groups, where there are any.
        files: lists whose names begin with "train" and "test", and perhaps a class index whose name begins with "class". A
            line of a list is a path and perhaps the number of its class; one of the index is ``number name``.

    Returns:
        The listed sources with their split, and those that no list names.

    Raises:
        DataError: a file of another name, a clip that is not in the sources or in both splits, a group in both splits, or a
            number that is not that of the clip's class.
    """
    starts = {path: path.name.lower() for path in files}
    lists: dict[Path, Literal["train", "test"]] = {
        path: "train" if start.startswith("train") else "test"
        for path, start in starts.items()
        if start.startswith(("train", "test"))
    }
    index = next((path for path, start in starts.items() if start.startswith("class")), None)
    if odd := next((path for path in files if path not in lists and path != index), None):
        raise DataError(f"{odd} is no split file; their names begin with train, test or class, as that of trainlist01.txt does")
    if missing := {"train", "test"} - set(lists.values()):
        raise DataError(
            f"the split files have no list for {' and '.join(sorted(missing))}; give trainlist01.txt and testlist01.txt"
        )
    splits: dict[str, Literal["train", "test"]] = {}
    for path, split in lists.items():
        numbers = _match(sources, path, [_fields(path, line) for line in _text(path).splitlines() if line.strip()])
        _refuse_misnumbered(sources, path, numbers, index)
        for name in numbers:
            if splits.setdefault(name, split) != split:
                raise DataError(f"{path} names {name}, which is in the list of the other split too; a clip belongs to one")
    listed = [replace(source, split=splits[source.name]) for source in sources if source.name in splits]
    training, test = ({source.group for source in listed if source.split == split} for split in ("train", "test"))
    if leaks := sorted(group for group in training & test if group):
        raise DataError(f"the group {leaks[0]!r} is in both lists; give the --group that they keep apart, or none")
    return listed, [source for source in sources if source.name not in splits]


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table: CSV with a header line, JSON lines, or text lines ``path label`` (VGAN's lists).

    Raises:
        DataError: another suffix, a missing or empty file, or a line that cannot be read.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise DataError(f"{path} is no table; accepted: {', '.join(TABLE_SUFFIXES)}, or one of {', '.join(NAMINGS)}")
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".txt": _read_list}
    rows = readers[suffix](path, text)
    if not rows:
        raise DataError(f"{path} has no rows; give one row per clip")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {getattr(error, 'strerror', None) or error}") from None


def _fields(path: Path, line: str) -> tuple[str, str]:
    """Return the two words of a line of a split file; "-" where there is no second one."""
    words = line.split()
    if len(words) > 2:
        raise DataError(f"{path} has the line {line!r}; wanted is a path, and perhaps the number of its class")
    return words[0], words[1] if len(words) == 2 else "-"


def _refuse_misnumbered(sources: Sequence[Source], path: Path, numbers: Mapping[str, str], index: Path | None) -> None:
    """Raise `DataError` where a clip has another number than its class has in the index, or in the lines before it."""
    lines = [line for line in _text(index).splitlines() if line.strip()] if index else []
    known = {name: number for number, name in (_fields(index or path, line) for line in lines)}
    for source in sources:
        number = numbers.get(source.name, "-")
        if source.label and number != "-" and known.setdefault(source.label, number) != number:
            raise DataError(
                f"{path} gives {source.name} the class number {number}, and the class {source.label!r} has "
                f"{known[source.label]}; use the lists that belong to these folders, with --labels folder"
            )


def _words(sources: Sequence[Source], origin: str | None, columns: Sequence[str], *, required: bool = True) -> dict[str, str]:
    """Return source name -> word, from the path or from one column of a table."""
    if origin is None:
        return {}
    if origin in NAMINGS:
        return {source.name: _from_path(source, origin) for source in sources}
    path = Path(origin)
    if path.suffix.lower() not in TABLE_SUFFIXES and not path.exists():
        tables = ", ".join(TABLE_SUFFIXES)
        raise DataError(f"{origin!r} is no part of a path and no table ({tables}); {accepted(origin, NAMINGS)}")
    rows = read_table(path)
    header = list(dict.fromkeys(name for row in rows for name in row))
    column = next((name for name in columns if name in header), None)
    if column is None and not required:
        return {}
    key = next((name for name in NAME_COLUMNS if name in header), None)
    if column is None or key is None:
        missing = f"column {columns[0]!r}" if column is None else f"column that names the clip ({', '.join(NAME_COLUMNS)})"
        raise DataError(f"{path} has no {missing}; it has: {', '.join(header)}")
    return _match(sources, path, [(row.get(key, ""), row.get(column, "")) for row in rows])


def _match(sources: Sequence[Source], table: Path, rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    known, words, unknown = _names(sources, table), dict[str, str](), []
    for clip, word in rows:
        name = known.get(clip) or known.get(str((table.parent / clip).absolute()))
        if name is None:
            unknown.append(clip)
        elif words.setdefault(name, word) != word:
            raise DataError(f"{table} says both {words[name]!r} and {word!r} about {name}; give one row per clip")
    if unknown:
        raise DataError(
            f"{table} names {len(unknown)} clips that are not in the sources: {_first_of(unknown)}; "
            f"the sources are called: {_first_of([source.name for source in sources])}"
        )
    return {name: word for name, word in words.items() if word}


def _names(sources: Sequence[Source], table: Path) -> dict[str, str]:
    """Return everything that a table may call a source -> its name: paths, and file names that are unique."""
    short = Counter(alias for source in sources for alias in _aliases(source))
    names = {alias: source.name for source in sources for alias in _aliases(source) if short[alias] == 1}
    for source in sources:
        names[source.name] = names[source.path] = source.name
    return names


def _aliases(source: Source) -> set[str]:
    path = Path(source.name)
    return {str(path.with_suffix("")), path.name, path.stem} - {source.name}


def _from_path(source: Source, naming: str) -> str:
    path = Path(source.path)
    stem = path.name if source.kind == "frames" else path.stem
    words = {
        "folder": path.parent.name,
        "parent2": path.parent.parent.name,
        "name": stem,
        "prefix": stem.split("_")[0],
        "take": stem.rpartition("_")[0] or stem,
        "source": source.name,
    }
    return words[naming]


def _group(source: Source) -> str:
    return source.group or source.name


def _first_of(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _read_csv(path: Path, text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num}: as many fields as in the header line are wanted ({reader.fieldnames})"
            )
        rows.append({name.strip(): value.strip() for name, value in row.items()})
    return rows


def _read_json_lines(path: Path, text: str) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is no JSON: {error}") from None
        if not isinstance(row, Mapping):
            raise DataError(f'{path}, line {number} is no JSON object; wanted is one such as {{"source": ..., "label": ...}}')
        rows.append({str(name): str(value) for name, value in row.items() if value is not None})
    return rows


def _read_list(path: Path, text: str) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.rsplit(maxsplit=1)
        if len(words) == 1:
            raise DataError(f"{path}, line {number} is {line!r}; wanted is a path, a space and a label")
        if words:
            rows.append({"path": words[0], "label": words[1]})
    return rows
