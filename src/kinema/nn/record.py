"""What a system knows and no tensor says: JSON values in a buffer, so that one checkpoint holds everything."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.errors import DataError


class Record(nn.Module):
    """A mapping that is saved, loaded and sent to other processes like a weight; nothing at first.

    Args:
        size: bytes of its longest JSON text.
    """

    text: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("text", torch.zeros(size, dtype=torch.uint8))

    def write(self, values: Mapping[str, Any]) -> None:
        """Replace the mapping.

        Raises:
            DataError: when its text is too long.
        """
        text, size = json.dumps(values).encode(), len(self.text)
        if len(text) > size:
            raise DataError(f"a record of {len(text):,} bytes does not fit into {size:,}")
        self.text.copy_(torch.frombuffer(bytearray(text.ljust(size)), dtype=torch.uint8))

    def read(self) -> dict[str, Any] | None:
        """Return the mapping; None before anything was written."""
        return json.loads(bytes(self.text.cpu().tolist())) if bool(self.text.any()) else None
