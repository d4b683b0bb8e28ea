"""Muon whose matrices of one shape are orthogonalised together.

References:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class BatchedMuon(torch.optim.Muon):
    """torch's Muon with the same state, and the same steps to rounding.

    torch multiplies one matrix after the other: for matrices of 128 x 512 and less its products take 1.4 times as long on one
    thread of a processor, and 1.7 times on two.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix that has a gradient."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append((matrix, matrix.grad))
            for (rows, columns), moved in by_shape.items():
                matrices, gradients = [matrix for matrix, _ in moved], [gradient for _, gradient in moved]
                momenta = [self._momentum(matrix) for matrix in matrices]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
                if group["nesterov"]:
                    momenta = torch._foreach_lerp(gradients, momenta, group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
                updates = orthogonal(torch.stack(momenta), group["ns_coefficients"], group["ns_steps"], group["eps"]).float()
                adam = group["adjust_lr_fn"] == "match_rms_adamw"
                rate = group["lr"] * (0.2 * math.sqrt(max(rows, columns)) if adam else math.sqrt(max(1, rows / columns)))
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
                torch._foreach_add_(matrices, list(updates), alpha=-rate)  # pyright: ignore[reportPrivateImportUsage]
        return None

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, least: float) -> Tensor:
    """Return matrices of about the same singular vectors whose singular values are about 1, in bfloat16 (Newton-Schulz)."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    wide = (matrices.mT if tall else matrices).to(torch.bfloat16, memory_format=torch.contiguous_format)
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp_min(least)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide
