"""What torch.compile must leave alone."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def untraced(function: Function) -> Function:
    """Let a function run as it is written where what calls it is compiled: it leaves torch, or keeps what it made."""
    return cast(Function, torch.compiler.disable(function))
