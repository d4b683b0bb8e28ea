"""Mappings in a buffer."""

import pytest
import torch

from kinema.core.errors import DataError
from kinema.nn.record import Record


def test_a_mapping_travels_with_the_weights():
    one, other = Record(64), Record(64)
    assert one.read() is None
    one.write({"feet": [1.5, None], "name": "ä"})
    other.load_state_dict(one.state_dict())
    assert other.read() == {"feet": [1.5, None], "name": "ä"}
    one.write({})
    assert one.read() == {}
    with pytest.raises(DataError, match="a record of 109 bytes does not fit into 64"):
        one.write({"long": "x" * 97})
    assert one.read() == {}
    assert torch.is_tensor(one.text)
