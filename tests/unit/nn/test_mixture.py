import pytest
import torch

from kinema.core.errors import TrainingError
from kinema.nn.mixture import GaussianMixture


def two_clusters(rows: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    side = (torch.arange(rows) % 4 == 0).float()[:, None]  # a quarter of the codes
    spread = torch.tensor([0.5, 0.1])
    return torch.randn(rows, 2, generator=generator) * spread + side * 10 - 5


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_a_fitted_mixture_returns_the_moments_of_its_data(covariance):
    codes, mixture = two_clusters(), GaussianMixture(2, 2, covariance)
    numbers = mixture.fit(codes)
    drawn = mixture.sample(range(2000))
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), atol=0.4, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), codes.T.cov(), atol=1.5, rtol=0)
    upper = drawn[drawn[:, 0] > 0]
    assert len(upper) / len(drawn) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(upper.std(0), codes[codes[:, 0] > 0].std(0), atol=0.05, rtol=0)
    assert numbers["log_likelihood_held_out"] == pytest.approx(numbers["log_likelihood"], abs=0.5)


def test_few_codes_use_few_components_and_a_checkpoint_of_the_same_size():
    mixture = GaussianMixture(256, 3, "diag")
    shapes = {name: value.shape for name, value in mixture.state_dict().items()}
    assert mixture.fit(torch.randn(40, 3))["components"] == 5
    assert {name: value.shape for name, value in mixture.state_dict().items()} == shapes
    assert mixture.sample([1, 2]).shape == (2, 3)


def test_a_seed_alone_decides_a_code():
    mixture = GaussianMixture(4, 2, "diag")
    mixture.fit(two_clusters())
    assert torch.equal(mixture.sample([7, 3, 7])[0], mixture.sample([7])[0])
    assert not torch.equal(mixture.sample([3]), mixture.sample([7]))


def test_an_unfitted_mixture_and_too_few_codes_are_refused():
    with pytest.raises(TrainingError, match="not fitted"):
        GaussianMixture(2, 2, "diag").sample([0])
    with pytest.raises(TrainingError, match="at least 16 codes"):
        GaussianMixture(2, 2, "diag").fit(torch.zeros(15, 2))
