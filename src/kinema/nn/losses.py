"""Objectives that several systems share."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from kinema.core.peers import mean_over_processes
from kinema.core.types import Scalar, Video

Adversary = Literal["non_saturating", "minimax", "hinge"]
EPSILON = 1e-6  # of an element: where there is none, an error of 0 is divided by it


def discriminator_terms(real: Float[Tensor, "B"], fake: Float[Tensor, "B"], adversary: Adversary) -> dict[str, Scalar]:
    """Return what a discriminator minimises for its logits of real and generated clips.

    With sigmoid probabilities D: ``-log D(x) - log(1 - D(G(z)))``; for "hinge" the linear margins of Lim and Ye.

    References:
        Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, Equation 1; Lim and Ye, "Geometric GAN", 2017.
    """
    if adversary == "hinge":
        return {"real": relu(1 - real.float()).mean(), "fake": relu(1 + fake.float()).mean()}
    return {"real": softplus(-real.float()).mean(), "fake": softplus(fake.float()).mean()}


def generator_term(fake: Float[Tensor, "B"], adversary: Adversary) -> Scalar:
    """Return the adversarial term of a generator: ``-log D(G(z))``, or ``log(1 - D(G(z)))`` for "minimax".

    References:
        Goodfellow et al., NeurIPS 2014, Equation 1 and the remark below it.
    """
    match adversary:
        case "non_saturating":
            return softplus(-fake.float()).mean()
        case "minimax":
            return -softplus(fake.float()).mean()
        case "hinge":
            return -fake.float().mean()


def masked_squared_error(
    predicted: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], mask: Float[Tensor, "*shape"]
) -> Scalar:
    """Return the mean squared error over the elements whose mask is 1, in all processes together; 0 where there is none."""
    errors = ((predicted.float() - target.float()).square() * mask).sum()
    return errors / mean_over_processes(mask.sum()).clamp_min(EPSILON)


def kl_to_normal(mu: Float[Tensor, "B Z"], log_variance: Float[Tensor, "B Z"]) -> Scalar:
    r"""Return the divergence of $N(\mu, \sigma^2)$ from N(0, I) in nats, summed over dimensions; mean of the batch.

    $-\frac{1}{2} \sum (1 + \log \sigma^2 - \mu^2 - \sigma^2)$.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, Appendix B.
    """
    return -0.5 * (1 + log_variance - mu.square() - log_variance.exp()).sum(dim=1).mean()


def r1_penalty(score: Callable[[Video], Float[Tensor, "B"]], real: Video) -> Scalar:
    """Return half the mean squared norm of the score's gradient at real clips.

    Computed in full precision: a gradient of a gradient in bfloat16 is mostly noise. The score must treat samples
    independently (no batch norm), or the gradient is not that of one sample.

    References:
        Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, Equation 9.
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(real).sum(), real, create_graph=True)
        return 0.5 * gradient.square().sum(dim=(1, 2, 3, 4)).mean()


def least_squares(logits: Sequence[Tensor], target: float) -> Scalar:
    """Return the mean squared distance of a discriminator's logits from `target`, summed over its scales.

    References:
        Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, Equation 2 with a = 0, b = c = 1.
    """
    return torch.stack([(one.float() - target).square().mean() for one in logits]).sum()


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Scalar:
    """Return how far a discriminator's activations for a generated image are from those for the real one.

    The mean absolute difference of every layer, summed over layers, averaged over scales.

    Args:
        real: activations per scale and layer; constants.
        fake: activations per scale and layer.

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, Equation 4.
    """
    gaps = [absolute_error(got, wanted) for scale in zip(real, fake, strict=True) for wanted, got in zip(*scale, strict=True)]
    return torch.stack(gaps).sum() / len(real)


def absolute_error(made: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> Scalar:
    """Return the mean absolute difference from a constant, summed up in float32."""
    return cast(Tensor, AbsoluteError.apply(made, truth.detach()))


class AbsoluteError(torch.autograd.Function):
    """A mean of absolute differences whose gradient lies in memory as what was made does.

    That of torch's mean lies in rows of one channel after the other, and whatever came before it is then slow.
    """

    @staticmethod
    def forward(ctx: Any, made: Tensor, truth: Tensor) -> Tensor:
        """Return the mean."""
        gap = made - truth
        ctx.save_for_backward(gap)
        ctx.precision = made.dtype
        return torch.linalg.vector_norm(gap, 1, dtype=torch.float32) / gap.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient: a sign for every element, 0 where there is no difference."""
        (gap,) = ctx.saved_tensors
        return (gap.sign() * (gradients[0] / gap.numel())).to(ctx.precision), None
