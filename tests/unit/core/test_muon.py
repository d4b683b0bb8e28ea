"""Muon on all matrices of a shape at once, against torch's."""

import copy

import pytest
import torch
from torch import nn

from kinema.core.muon import BatchedMuon

SHAPES = ((6, 4), (4, 6), (6, 4), (5, 5), (4, 9), (4, 6), (6, 4))


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def given_gradients(one: list[nn.Parameter], other: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for a, b in zip(one, other, strict=True):
        a.grad = torch.randn(a.shape, generator=generator)
        b.grad = a.grad.clone()


@pytest.mark.parametrize("convention", ["original", "match_rms_adamw"])
@pytest.mark.parametrize(("nesterov", "decay"), [(True, 0.0), (False, 0.1)])
def test_its_steps_are_those_of_torch(convention, nesterov, decay):
    mine, theirs = matrices(), matrices()
    settings = {"lr": 0.1, "nesterov": nesterov, "weight_decay": decay, "adjust_lr_fn": convention, "ns_steps": 4}
    ours, plain = BatchedMuon(mine, **settings), torch.optim.Muon(theirs, **settings)
    for step in range(4):
        given_gradients(mine, theirs, step)
        ours.step()
        plain.step()
    for start, a, b in zip(matrices(), mine, theirs, strict=True):
        assert (b - start).abs().max() > 0.02, "they have moved"
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0.0)  # products of bfloat16


def test_it_goes_on_from_the_state_of_torch():
    mine, theirs = matrices(), matrices()
    ours, plain = BatchedMuon(mine, lr=0.1), torch.optim.Muon(theirs, lr=0.1)
    given_gradients(mine, theirs, 0)
    plain.step()
    ours.load_state_dict(copy.deepcopy(plain.state_dict()))
    for a, b in zip(mine, theirs, strict=True):
        a.data.copy_(b)
    given_gradients(mine, theirs, 1)
    ours.step()
    plain.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0.0)
    assert ours.state_dict()["state"].keys() == plain.state_dict()["state"].keys()


def test_a_matrix_without_a_gradient_stays():
    mine = matrices()
    for matrix in mine[1:]:
        matrix.grad = torch.ones_like(matrix)
    BatchedMuon(mine, lr=0.1, weight_decay=0.1).step()
    for start, matrix in zip(matrices(), mine, strict=True):
        assert torch.equal(start, matrix) == (matrix.grad is None)
