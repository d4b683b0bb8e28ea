from dataclasses import dataclass
from typing import Literal

import pytest

from kinema.core.config import Config, differences, from_mapping, override, shape_options, to_mapping
from kinema.core.errors import ConfigError, accepted


@dataclass(frozen=True)
class Example(Config):
    width: int = 8
    kind: Literal["wide", "narrow"] = "wide"
    families: tuple[str, ...] = ()

    def check(self) -> None:
        self.at_least(1, "width")


def test_json_round_trip():
    config = Example(3, "narrow", ("colour",))
    assert from_mapping(Example, to_mapping(config)) == config


def test_unknown_field_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no field 'widht'; did you mean 'width'"):
        from_mapping(Example, {"widht": 3})
    with pytest.raises(ConfigError, match="did you mean 'kind'"):
        override(Example(), {"kinds": "wide"})


@pytest.mark.parametrize("values", [{"width": "many"}, {"kind": "huge"}, {"families": 3}])
def test_values_of_the_wrong_type_are_refused_with_field_and_value(values):
    ((name, value),) = values.items()
    with pytest.raises(ConfigError, match=rf"Example\.{name}.*{value}"):
        from_mapping(Example, values)


def test_ranges_are_checked_when_a_configuration_is_made():
    with pytest.raises(ConfigError, match="width is 0; it must be 1 or more"):
        Example(width=0)


def test_differences_name_both_values():
    assert differences(Example(), Example(width=9)) == ["width: 8 -> 9"]


def test_accepted_without_anything_near_lists_all():
    assert accepted("zzz", ["b", "a"]) == "accepted: a, b"
    assert accepted("x", []) == "accepted: none"


@dataclass(frozen=True)
class Square(Config):
    frames: int = 32
    size: int = 64
    width: int = 24  # of the network

    def check(self) -> None:
        self.require(self.size % 16 == 0, "size", "a multiple of 16")


@dataclass(frozen=True)
class Oblong(Config):
    frames: int = 32
    height: int = 64
    width: int = 64


def test_options_for_a_shape_are_those_that_change_something() -> None:
    assert shape_options(Square(), 16, 64, 64) == "--frames 16"
    assert shape_options(Square(), 32, 128, 128) == "--size 128"
    assert shape_options(Oblong(), 32, 48, 96) == "--height 48 --width 96"


def test_no_options_where_there_are_none_for_a_shape_or_they_are_refused() -> None:
    assert shape_options(Square(), 16, 64, 80) == ""
    assert shape_options(Square(), 16, 60, 60) == ""
    assert shape_options(Config(), 16, 64, 64) == ""
