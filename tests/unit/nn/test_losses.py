import math

import pytest
import torch

from kinema.core.peers import answered_by
from kinema.nn.losses import (
    absolute_error,
    discriminator_terms,
    feature_matching,
    generator_term,
    kl_to_normal,
    masked_squared_error,
    r1_penalty,
)


def test_undecided_logits_cost_log_two():
    zero = torch.zeros(4)
    terms = discriminator_terms(zero, zero, "non_saturating")
    assert terms["real"].item() == pytest.approx(math.log(2))
    assert terms["fake"].item() == pytest.approx(math.log(2))
    assert generator_term(zero, "non_saturating").item() == pytest.approx(math.log(2))
    assert generator_term(zero, "minimax").item() == pytest.approx(-math.log(2))


def test_hinge_by_hand():
    terms = discriminator_terms(torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0]), "hinge")
    assert (terms["real"].item(), terms["fake"].item()) == (0.25, 0.5)
    assert generator_term(torch.tensor([1.0, 3.0]), "hinge").item() == -2


@pytest.mark.parametrize("adversary", ["non_saturating", "minimax", "hinge"])
def test_a_generator_gains_by_higher_scores(adversary):
    score = torch.tensor([0.3], requires_grad=True)
    generator_term(score, adversary).backward()
    assert score.grad is not None
    assert score.grad.item() < 0


def test_a_masked_error_is_the_mean_over_what_counts():
    predicted, target = torch.tensor([[1.0, 5.0], [2.0, 9.0]]), torch.tensor([[0.0, 1.0], [2.0, 100.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_squared_error(predicted, target, mask).item() == pytest.approx((1 + 16 + 0) / 3)
    assert masked_squared_error(predicted, target, torch.zeros(2, 2)).item() == 0
    with answered_by(lambda count: (count + 1) / 2):  # the other process has one element of an error of 0
        assert masked_squared_error(predicted, target, mask).item() / 2 == pytest.approx((1 + 16 + 0 + 0) / 4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_absolute_error_has_torchs_value_and_gradient_in_the_order_of_memory(precision):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 6, 8).to(precision)
    made = images[0].contiguous(memory_format=torch.channels_last).requires_grad_()
    truth = images[1].contiguous(memory_format=torch.channels_last)
    truth[0] = made[0].detach()
    other = made.detach().float().requires_grad_()
    found, expected = absolute_error(made, truth), (other - truth.float()).abs().mean()
    (3 * found).backward()
    (3 * expected).backward()
    assert (found.dtype, made.grad.dtype) == (torch.float32, precision)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6 if precision == torch.float32 else 2e-3)
    torch.testing.assert_close(made.grad.float(), other.grad, rtol=1e-5 if precision == torch.float32 else 1e-2, atol=0)
    assert made.grad.is_contiguous(memory_format=torch.channels_last)


def test_the_truth_of_an_absolute_error_learns_nothing():
    made, truth = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    absolute_error(made, truth).backward()
    assert truth.grad is None
    assert made.grad.tolist() == pytest.approx([1 / 3] * 3)


def test_feature_matching_by_hand():
    real = [[torch.zeros(2), torch.ones(4)], [torch.zeros(2)]]
    fake = [[torch.ones(2), torch.zeros(4)], [torch.tensor([0.0, 4.0])]]
    assert feature_matching(real, fake).item() == pytest.approx((1 + 1 + 2) / 2)


def test_divergence_from_the_normal_distribution_by_hand():
    mu, log_variance = torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    expected = (2.0 + 0.5 * (torch.e - 1 - 1)) / 2
    assert kl_to_normal(mu, log_variance).item() == pytest.approx(expected)


def test_r1_of_a_linear_score_is_half_its_squared_norm():
    weight = torch.randn(1, 3, 2, 4, 4)
    penalty = r1_penalty(lambda video: (video * weight).sum(dim=(1, 2, 3, 4)), torch.randn(5, 3, 2, 4, 4))
    assert penalty.item() == pytest.approx(0.5 * weight.square().sum().item(), rel=1e-5)


def test_r1_is_computed_in_full_precision_under_autocast():
    seen = []

    def score(video):
        seen.append((video.dtype, torch.is_autocast_enabled("cpu")))
        return video.square().sum(dim=(1, 2, 3, 4))

    with torch.autocast("cpu", torch.bfloat16):
        r1_penalty(score, torch.ones(1, 3, 2, 4, 4, dtype=torch.bfloat16))
    assert seen == [(torch.float32, False)]
