"""What a GPU has held at most."""

from typing import Any

import pytest
import torch

from kinema.training.memory import peak_memory


def test_what_a_gpu_held_is_told_in_mebibytes_and_of_a_cpu_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def allocated(device: Any) -> int:
        asked.append(device)
        return 5 * 2**19

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated)
    gpu = torch.device("cuda", 1)
    assert peak_memory(gpu) == 2.5
    assert peak_memory(torch.device("cpu")) is None
    assert asked == [gpu]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_that_is_gone_still_counts() -> None:
    device = torch.device("cuda")
    before = peak_memory(device)
    torch.empty(2**28, dtype=torch.uint8, device=device).sum()
    after = peak_memory(device)
    assert before is not None
    assert after is not None
    assert after >= max(before, 256)
