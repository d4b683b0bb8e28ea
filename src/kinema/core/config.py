"""Configurations: frozen flat dataclasses, checked when they are made, strict when they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kinema.core.errors import ConfigError, accepted

ConfigT = TypeVar("ConfigT", bound="Config")
_adapter = cache(TypeAdapter)


@dataclass(frozen=True)
class Config:
    """Base of every configuration. A docstring under each field is its ``--help``."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise `ConfigError` when a value is out of range; a subclass says its ranges here."""

    def for_labels(self: ConfigT, labels: Sequence[str]) -> ConfigT:
        """Return these settings with what the classes of a dataset decide filled in, where they ask for it.

        ``kinema train`` calls it when a run begins, and keeps what was given on the command line. Nothing is decided here: a
        recogniser always fills in how many classes there are, a system with a choice only when labels are its condition.

        Args:
            labels: names of the dataset's classes; perhaps none.
        """
        return self

    def for_frames(self, frames: int) -> dict[str, int]:
        """Return the settings with which clips have so many frames, or a few less; none where nothing decides it."""
        return {"frames": frames} if hasattr(self, "frames") else {}

    def require(self, holds: bool, field: str, wanted: str) -> None:
        """Raise `ConfigError` naming `field`, its value and what is `wanted`, unless the condition `holds`."""
        if not holds:
            raise ConfigError(f"{field} is {getattr(self, field)!r}; it must be {wanted}")

    def at_least(self, least: int, *names: str) -> None:
        """Raise `ConfigError` unless every named field is at least `least`."""
        for name in names:
            self.require(getattr(self, name) >= least, name, f"{least} or more")


def to_mapping(config: Config) -> dict[str, Any]:
    """Return the fields of a configuration as JSON values."""
    return _adapter(type(config)).dump_python(config, mode="json")


def from_mapping(config_class: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration from JSON values.

    Raises:
        ConfigError: for an unknown field (with the nearest name), a missing one or a value of the wrong type.
    """
    refuse_unknown(config_class, values)
    try:
        return _adapter(config_class).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{config_class.__name__}.{where}: {first['msg']} (got {first['input']!r})") from None


def override(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return `config` with some fields changed; unknown fields are refused as in `from_mapping`."""
    refuse_unknown(type(config), values)
    return replace(config, **values)


def shape_options(config: Config, frames: int, height: int, width: int) -> str:
    """Return the options with which a system trains on clips of a shape, such as ``--frames 16 --size 64``.

    Args:
        config: settings of another shape.
        frames: of the clips, or fewer.
        height: of the clips.
        width: of the clips.

    Returns:
        The options that change something; nothing where the system has none for it, or refuses their values.
    """
    if hasattr(config, "size"):  # the edge of a square; a width beside it is that of the network
        sides = {"size": height} if height == width else {}
    else:
        sides = {"height": height, "width": width} if hasattr(config, "height") else {}
    known = sides | config.for_frames(frames)
    if not sides:
        return ""
    try:
        replace(config, **known)
    except ConfigError:
        return ""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in known.items() if getattr(config, name) != value)


def refuse_unknown(config_class: type[Config], values: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for the first key of `values` that is no field of `config_class`."""
    known = [field.name for field in fields(config_class)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{config_class.__name__} has no field {name!r}; {accepted(name, known)}")


LISTED = 6
"""Values of a list that are written out where two configurations differ."""


def differences(one: Config, other: Config) -> list[str]:
    """List the fields in which two configurations of one class differ, as ``field: 1 -> 2``."""
    a, b = asdict(one), asdict(other)
    return [f"{name}: {_short(a[name])} -> {_short(b[name])}" for name in a if a[name] != b[name]]


def _short(value: object) -> str:
    """Return a value as it is written, or how many there are of a long list."""
    return f"{len(value)} values" if isinstance(value, (tuple, list)) and len(value) > LISTED else repr(value)
