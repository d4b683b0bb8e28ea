"""Compressor of the latent video diffusion transformer: clips to latents in space and time, and back."""

import math
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kinema.core.errors import ConfigError
from kinema.core.types import Scalar, Video
from kinema.nn.convolution import SpaceTimeConvolution
from kinema.nn.moments import Moments
from kinema.systems.latent_video_dit_networks import Latent, LatentVideoDiTConfig, silence

LOG_VARIANCE = -6.0  # of latents whose means are of about unit variance: at the start, or for good where the encoder is linear


def fold(video: Float[Tensor, "B C T H W"], block: tuple[int, int, int]) -> Float[Tensor, "B D t h w"]:
    """Move blocks of time and space into channels."""
    a, b, c = block
    return rearrange(video, "b ch (t a) (h p) (w q) -> b (ch a p q) t h w", a=a, p=b, q=c)


def unfold(folded: Float[Tensor, "B D t h w"], block: tuple[int, int, int]) -> Float[Tensor, "B C T H W"]:
    """Undo `fold`."""
    a, b, c = block
    return rearrange(folded, "b (ch a p q) t h w -> b ch (t a) (h p) (w q)", a=a, p=b, q=c)


def broadcast(per_channel: Float[Tensor, "Z"]) -> Float[Tensor, "Z 1 1 1"]:
    """Return numbers of channels for tensors of latents."""
    return per_channel[:, None, None, None]


def decibels(squared: Scalar) -> Scalar:
    """Return the peak signal-to-noise ratio of a mean squared error in [-1, 1]."""
    return 10 * torch.log10(4 / squared.detach().float().clamp_min(1e-12))


class Residual(nn.Module):
    """Two normalised convolutions over time and space, added to their input; zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            SpaceTimeConvolution(width, width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            SpaceTimeConvolution(width, width),
        )
        silence(cast(nn.Conv3d, self.layers[-1]))

    def forward(self, features: Float[Tensor, "B C t h w"]) -> Float[Tensor, "B C t h w"]:
        """Return features of the same shape."""
        return features + self.layers(features)


def residuals(inputs: int, width: int, outputs: int, blocks: int) -> nn.Sequential:
    """Return residual blocks between two convolutions of kernel 1."""
    return nn.Sequential(
        nn.Conv3d(inputs, width, 1),
        *(Residual(width) for _ in range(blocks)),
        nn.GroupNorm(8, width),
        nn.SiLU(),
        nn.Conv3d(width, outputs, 1),
    )


class Compressor(nn.Module):
    """A variational autoencoder in space and time; the stem folds pixels first, so that no convolution sees full resolution.

    Where there are linear maps, the networks add to them and give nothing at the start: training begins from the best that is
    linear (`start_linear`) instead of from noise.

    Attributes:
        restored: whether its weights have come out of a file.
    """

    def __init__(self, config: LatentVideoDiTConfig) -> None:
        super().__init__()
        self.stem, width, latent = config.stem, config.compressor_width, config.latent_channels
        folded = 3 * math.prod(self.stem)
        linear = config.compressor_linear
        self.project = nn.Conv3d(folded, latent, 1) if linear != "none" else None
        self.restore = nn.Conv3d(latent, folded, 1) if linear != "none" else None
        self.encoder = None if linear == "encoder" else residuals(folded, width, 2 * latent, config.compressor_blocks)
        self.decoder = residuals(latent, width, folded, config.compressor_blocks)
        self.restored = False
        self.register_load_state_dict_post_hook(_say_restored)
        if linear != "none":
            silence(*(cast(nn.Conv3d, network[-1]) for network in (self.encoder, self.decoder) if network is not None))

    def encode(self, video: Video) -> tuple[Latent, Latent]:
        """Return the mean and the log variance of the latent; the variance is constant where the encoder is linear."""
        folded = fold(video, self.stem)
        linear = self.project(folded) if self.project is not None else None
        if self.encoder is None:
            assert linear is not None
            return linear, torch.full_like(linear, LOG_VARIANCE)
        mean, log_variance = self.encoder(folded).chunk(2, dim=1)
        if linear is not None:
            mean, log_variance = mean + linear, log_variance + LOG_VARIANCE
        return mean, log_variance.clamp(-12, 2)

    def decode(self, latent: Latent) -> Video:
        """Return the clip; not bounded."""
        made = self.decoder(latent)
        return unfold(made if self.restore is None else made + self.restore(latent), self.stem)

    def weights(self, deviation: Float[Tensor, "Z"]) -> Float[Tensor, "Z"]:
        """Return how much of the pixels' deviation every channel of the latent bears, in the linear map; ones without it."""
        if self.restore is None:
            return torch.ones_like(deviation)
        weights = self.restore.weight.flatten(1).norm(dim=0).to(deviation) * deviation
        return weights.clamp_min(1e-3 * float(weights.max()))

    def forward(self, video: Video, noise: Latent) -> tuple[Video, Latent, Latent]:
        """Return the reconstruction through a drawn latent, and the latent's mean and log variance."""
        mean, log_variance = self.encode(video)
        return self.decode(mean + (0.5 * log_variance).exp() * noise), mean, log_variance

    @torch.no_grad()
    def start_linear(self, moments: Moments) -> float:
        """Let the linear maps be those of least squared error: the principal components, each of unit variance.

        Args:
            moments: of the folded pixels of clips.

        Returns:
            The share of the variance that they keep, from 0 to 1.
        """
        assert self.project is not None
        assert self.restore is not None
        basis, deviations = moments.principal(self.project.out_channels)
        kept = len(deviations)
        scales = deviations.clamp_min(1e-3 * float(deviations.max())).clamp_min(1e-6)  # still and empty footage too
        for layer in (self.project, self.restore):
            silence(layer)
        to_latent, to_pixels = (basis / scales).T, basis * scales
        self.project.weight[:kept, :, 0, 0, 0] = to_latent.to(self.project.weight)
        cast(Tensor, self.project.bias)[:kept] = (-to_latent @ moments.mean).to(self.project.weight)
        self.restore.weight[:, :kept, 0, 0, 0] = to_pixels.to(self.restore.weight)
        cast(Tensor, self.restore.bias).copy_(moments.mean)
        return float(deviations.square().sum() / moments.covariance.trace().clamp_min(1e-12))


def _say_restored(compressor: nn.Module, _: object) -> None:
    cast(Compressor, compressor).restored = True


def take_compressor(compressor: Compressor, path: Path) -> None:
    """Load the compressor out of another run's checkpoint, unless it has come with the state of a run that goes on.

    Raises:
        ConfigError: for a file that is missing or none, or a compressor of another size.
    """
    if compressor.restored:
        return
    file = path / "checkpoint.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as stored:
            prefix = "compressor."
            found = {name.removeprefix(prefix): stored.get_tensor(name) for name in stored.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"compressor_from: {file} is no checkpoint ({error})") from None
    wanted = compressor.state_dict()
    if not found:
        raise ConfigError(f"compressor_from: {file} holds no compressor; name a run of latent-video-dit")
    unlike = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
    if unlike or len(found) != len(wanted):
        name = unlike[0] if unlike else sorted(set(found) - set(wanted))[0]
        one, other = (tuple(part[name].shape) if name in part else "missing" for part in (found, wanted))
        raise ConfigError(
            f"compressor_from: the compressor of {file} is of other settings ({name} is {one}, here {other}); "
            "compressor and transformer must agree on stem, latent_channels and every setting of the compressor"
        )
    compressor.load_state_dict(found)
