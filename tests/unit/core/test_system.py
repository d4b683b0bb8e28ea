import torch
from torch import nn

from kinema.core.system import Objective, adam
from kinema.core.tasks import abilities
from kinema.core.types import Batch, ClipShape


def test_total_is_the_sum_of_the_terms_in_float():
    objective = Objective({"a": torch.tensor(1.5, dtype=torch.bfloat16), "b": torch.tensor(2.0)}, {"c": torch.tensor(9.0)})
    assert objective.total.item() == 3.5
    assert objective.total.dtype == torch.float32


def test_adam_moves_scaled_modules_by_their_share():
    fast, slow = nn.Linear(2, 1), nn.Linear(2, 1)
    parameters = [*fast.parameters(), *slow.parameters()]
    views = [nn.Parameter(parameter.data) for parameter in parameters]  # the trainer hands over views of the same memory
    optimizer = adam(0.1, scales=[(slow, 0.25)])(views)
    before = [parameter.detach().clone() for parameter in (fast.weight, slow.weight)]
    for view in views:
        view.grad = torch.ones_like(view)
    optimizer.step()
    moved = [(old - new).abs().max().item() for old, new in zip(before, (fast.weight, slow.weight), strict=True)]
    # Adam's first step has the size of the learning rate, whatever the gradient.
    torch.testing.assert_close(torch.tensor(moved), torch.tensor([0.1, 0.025]), rtol=1e-3, atol=0)


def test_a_batch_says_what_it_carries():
    batch = Batch(torch.zeros(2, 3, 4, 8, 8), label=torch.tensor([0, 1]))
    assert (len(batch), batch.carries) == (2, {"video", "label"})
    assert batch.to("cpu").label is not None
    assert str(ClipShape(4, 8, 8)) == "4x8x8"


def test_abilities_are_found_by_protocol():
    class Dreams:
        def generate(self, seeds, *, label=None): ...

        def interpolate(self, start, end, steps): ...

    assert abilities(Dreams()) == ["generate", "interpolate"]
    assert abilities(object()) == []
