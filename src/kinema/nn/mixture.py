"""A mixture of Gaussians over codes, kept in buffers so that one checkpoint samples from it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core.errors import TrainingError
from kinema.core.types import Code

RIDGE = 1e-3  # added to every variance: with a few hundred codes the likelihood is unbounded without it


class GaussianMixture(nn.Module):
    """Gaussian mixture, fitted by expectation maximisation (scikit-learn).

    Args:
        components: the largest number of components; fewer are used when there are fewer than eight codes for each.
        dimensions: size of a code.
        covariance: "diag" or "full". A full one needs thousands of codes per component to generalise.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, components: int, dimensions: int, covariance: Literal["diag", "full"]) -> None:
        super().__init__()
        self.covariance = covariance
        factor = (dimensions,) if covariance == "diag" else (dimensions, dimensions)
        self.register_buffer("weights", torch.zeros(components))
        self.register_buffer("means", torch.zeros(components, dimensions))
        self.register_buffer("factors", torch.zeros(components, *factor))

    def fit(self, codes: Code, seed: int = 0) -> dict[str, float]:
        """Fit the mixture and return its mean log-likelihood on the codes and on a held-out tenth.

        The held-out figure comes from a fit without that tenth; the mixture that is kept is fitted to all codes.

        Raises:
            TrainingError: if there are fewer than 16 codes.
        """
        if len(codes) < 16:
            raise TrainingError(f"a mixture needs at least 16 codes to fit; the data gave {len(codes)}")
        data = codes.detach().float().cpu().numpy().astype(np.float64)
        order = np.random.default_rng(seed).permutation(len(data))
        held_out, rest = data[order[: len(data) // 10 or 1]], data[order[len(data) // 10 or 1 :]]
        heldout_likelihood = float(self._estimate(rest, seed).score(held_out))
        mixture = self._estimate(data, seed)
        self._keep(mixture)
        return {
            "components": float(mixture.n_components),
            "log_likelihood": float(mixture.score(data)),
            "log_likelihood_held_out": heldout_likelihood,
        }

    def sample(self, seeds: Sequence[int]) -> Code:
        """Draw one code per seed.

        Raises:
            TrainingError: if the mixture was never fitted.
        """
        if not bool(self.weights.sum() > 0):
            raise TrainingError("the mixture is not fitted yet; finish training, its last stage fits it")
        return torch.stack([self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds])

    def _draw(self, generator: torch.Generator) -> Tensor:
        component = int(torch.multinomial(self.weights.cpu(), 1, generator=generator))
        noise = torch.randn(self.means.shape[1], generator=generator).to(self.means)
        factor = self.factors[component]
        return self.means[component] + (factor * noise if self.covariance == "diag" else factor @ noise)

    def _estimate(self, data: np.ndarray, seed: int):
        from sklearn.mixture import GaussianMixture as Estimator

        components = max(1, min(len(self.weights), len(data) // 8))
        estimator = Estimator(
            components, covariance_type=self.covariance, reg_covar=RIDGE, random_state=seed, max_iter=200, tol=1e-2
        )
        return estimator.fit(data)

    def _keep(self, mixture) -> None:
        used = mixture.n_components
        covariances = torch.from_numpy(mixture.covariances_)
        factors = covariances.sqrt() if self.covariance == "diag" else torch.linalg.cholesky(covariances)
        for buffer, values in ((self.weights, mixture.weights_), (self.means, mixture.means_), (self.factors, factors)):
            buffer.zero_()
            buffer[:used] = torch.as_tensor(values).to(buffer)
