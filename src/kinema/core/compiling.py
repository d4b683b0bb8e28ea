"""Objectives compiled by torch, and what that must leave alone."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_LEFT_ALONE: list[list[Callable[..., Any]]] = []  # what runs of every function that is untraced, as a list of one


def untraced(function: Function) -> Function:
    """Let a function run as it is written where what calls it is `compiled`: it leaves torch, or keeps what it made."""
    runs: list[Callable[..., Any]] = [function]
    _LEFT_ALONE.append(runs)

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return runs[0](*args, **options)

    return cast(Function, call)


def compiled(function: Function) -> Function:
    """Return ``torch.compile(function)`` that leaves what is `untraced` alone.

    Torch is told of that only here: its compiler takes a second to import, which a program that never compiles is spared.
    """
    while _LEFT_ALONE:
        runs = _LEFT_ALONE.pop()
        runs[0] = torch.compiler.disable(runs[0])
    return cast(Function, torch.compile(function))
