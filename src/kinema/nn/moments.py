"""Mean, covariance and principal components of features that come in batches."""

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Mean and covariance of the channels of all features that were added, in double precision.

    Memory does not grow with their number.
    """

    def __init__(self) -> None:
        self.count, self.total, self.products = 0, torch.zeros(()), torch.zeros(())

    def add(self, features: Float[Tensor, "B D *places"]) -> None:
        """Take features in, every place as one row."""
        rows = features.double().movedim(1, -1).flatten(0, -2)
        self.count += len(rows)
        self.total = self.total.to(rows) + rows.sum(dim=0)
        self.products = self.products.to(rows) + rows.T @ rows

    @property
    def mean(self) -> Float[Tensor, "D"]:
        """Of the channels."""
        return self.total / self.count

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Of the channels, with the count in the denominator."""
        return self.products / self.count - torch.outer(self.mean, self.mean)

    def principal(self, components: int) -> tuple[Float[Tensor, "D K"], Float[Tensor, "K"]]:
        """Return the directions of greatest variance, ascending, and the standard deviation along each; at most D."""
        variances, directions = torch.linalg.eigh(self.covariance)
        kept = min(components, len(variances))
        return directions[:, -kept:], variances[-kept:].clamp_min(0).sqrt()
