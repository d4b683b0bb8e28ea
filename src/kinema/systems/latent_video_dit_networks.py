r"""Settings and networks of the latent video diffusion transformer; `kinema.systems.latent_video_dit` trains and samples them.

A clip of T x H x W pixels becomes a latent of T/2 x H/4 x W/4 by the compressor, and the latent becomes tokens that cover a
footprint of pixels each (4 x 8 x 8 in the small presets). Every size that is a multiple of the footprint works.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv3d, rms_norm, scaled_dot_product_attention, silu

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.core.types import ClipShape

Latent = Float[Tensor, "B Z t h w"]
Tokens = Float[Tensor, "B t h w D"]  # on their grid
Context = Float[Tensor, "B D"]

WRITTEN_OUT = 2048  # tokens up to which a processor writes attention out
EPSILON = 1e-6  # of norms


# --- Configuration ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentVideoDiTConfig(Config):
    """Settings of the latent video diffusion transformer; the defaults are those of `laptop`."""

    frames: int = 16
    """Frames of a training clip."""
    height: int = 32
    """Height of a training clip in pixels."""
    width: int = 32
    """Width of a training clip in pixels."""
    buckets: tuple[str, ...] = ()
    """Further sizes to train on, FRAMESxHEIGHTxWIDTH, cut from the clips, as many tokens a step; 1x32x32 are images."""
    bucket_share: float = 0.25
    """Share of the steps that train on one of the further sizes."""

    condition: Literal["auto", "none", "label", "caption"] = "auto"
    """What clips can be asked for by: nothing, their class, or a sentence. auto: their class, if the dataset has classes."""
    classes: int = 0
    """Number of classes, for condition "label"; filled in from the labels of the dataset."""
    text_encoder: Literal["words", "sentences"] = "words"
    """For condition "caption". words: a small encoder trained with the model. sentences: a packaged one ([text] extra)."""
    words: int = 512
    """Largest vocabulary of the encoder of words."""
    drop_condition: float = 0.1
    """Share of the clips that train without their class or sentence, for guidance."""

    compressor_width: int = 64
    """Channels of the compressor."""
    compressor_blocks: int = 2
    """Residual blocks of the encoder, and of the decoder."""
    compressor_linear: Literal["none", "shortcut", "encoder"] = "encoder"
    """Linear maps that start as the principal components of folded clips. none: the compressor's networks alone. shortcut:
    added to both networks. encoder: in place of the encoder's, and added to the decoder's."""
    latent_channels: int = 8
    """Channels of the latent."""
    channel_emphasis: float = 0.5
    """Power of their weight in pixels with which the channels of the latent are scaled, where there are linear maps: 0 all are
    alike, 1 they are as in the pixels."""
    stem_time: int = 2
    """Frames that the compressor folds into one."""
    stem_space: int = 4
    """Pixels of a side that the compressor folds into one."""
    kl_weight: float = 5e-5
    """Weight of the compressor's divergence from the prior."""
    compressor_rate: float = 3e-3
    """AdamW's step size for the compressor."""
    compressor_share: float = 0.12
    """Share of the budget for the compressor."""
    compressor_from: str = ""
    """Run or checkpoint of this system whose compressor is taken over instead of training one."""

    hidden: int = 160
    """Width of the transformer."""
    depth: int = 3
    """Blocks of the transformer."""
    heads: int = 5
    """Attention heads."""
    patch_time: int = 1
    """Frames of the latent in a token."""
    patch_space: int = 2
    """Elements of a side of the latent in a token."""
    attention: Literal["full", "alternating"] = "full"
    """full: every token sees all. alternating: blocks see their frame and their place in turn, for thousands of tokens."""
    token_convolution: bool = True
    """A depthwise convolution over neighbouring tokens at the start of every block."""
    pixel_condition: bool = True
    """Known pixels and their mask are shown to every token. Without (the ablation), they are pasted over clips made unseen."""

    path: Literal["flow", "noise", "edm"] = "flow"
    """flow: rectified flow, velocity. noise: DDPM's linear betas, noise. edm: EDM's preconditioning."""
    shift_tokens: int = 32
    """Tokens above which times move towards noise, by the root of the ratio."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon on the matrices of the blocks, AdamW elsewhere. adamw: everywhere."""
    learning_rate: float = 8e-3
    """Step size of the transformer's optimisers."""
    sampling_steps: int = 30
    """Steps from noise to a clip unless told otherwise."""
    guidance: float = 1.5
    """Classifier-free guidance unless told otherwise."""
    known_guidance: float = 2.0
    """The same of known pixels where a clip is completed."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        self.at_least(1, "frames", "height", "width", "words", "compressor_width", "compressor_blocks", "latent_channels")
        self.at_least(1, "stem_time", "stem_space", "hidden", "depth", "heads", "patch_time", "patch_space", "shift_tokens")
        self.at_least(1, "sampling_steps")
        self.at_least(0, "classes", "kl_weight", "channel_emphasis", "compressor_rate", "learning_rate", "guidance")
        self.at_least(0, "known_guidance")
        for name in ("bucket_share", "drop_condition"):
            self.require(0 <= getattr(self, name) <= 1, name, "from 0 to 1")
        self.require(0 < self.compressor_share < 1, "compressor_share", "between 0 and 1")
        self.require(self.compressor_width % 8 == 0, "compressor_width", "a multiple of 8")
        whole_heads = self.hidden % (2 * self.heads) == 0 and self.hidden >= 12
        self.require(whole_heads, "hidden", f"12 or more, and a multiple of {2 * self.heads} for {self.heads} heads")
        self.require(self.condition == "label" or not self.classes, "classes", "0 unless condition is 'label'")
        for shape in (self.shape, *self.bucket_shapes):
            refuse_other_sizes(shape, self.footprint)
            if any(bucket > whole for bucket, whole in zip(sides(shape), sides(self.shape), strict=True)):
                raise ConfigError(f"the size {shape} in buckets cannot be cut from clips of {self.shape}")

    def for_labels(self, labels: Sequence[str]) -> "LatentVideoDiTConfig":
        """Ask by class where there are classes to ask by."""
        if self.condition == "auto":
            return replace(self, condition="label", classes=len(labels)) if len(labels) > 1 else replace(self, condition="none")
        return replace(self, classes=len(labels)) if self.condition == "label" else self

    @property
    def asked_by(self) -> tuple[str, ...]:
        """What clips can be asked for by."""
        return (self.condition,) if self.condition in ("label", "caption") else ()

    @property
    def shape(self) -> ClipShape:
        """Of a training clip."""
        return ClipShape(self.frames, self.height, self.width)

    @property
    def bucket_shapes(self) -> tuple[ClipShape, ...]:
        """Further sizes to train on."""
        return tuple(parse_shape(text) for text in self.buckets)

    @property
    def stem(self) -> tuple[int, int, int]:
        """Frames, height and width of the pixels in an element of the latent."""
        return self.stem_time, self.stem_space, self.stem_space

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, height and width of a token in elements of the latent."""
        return self.patch_time, self.patch_space, self.patch_space

    @property
    def footprint(self) -> tuple[int, int, int]:
        """Frames, height and width of a token in pixels."""
        return self.stem_time * self.patch_time, self.stem_space * self.patch_space, self.stem_space * self.patch_space

    def tokens(self, shape: ClipShape) -> int:
        """Return the tokens of a clip; a single frame has those of one layer."""
        return math.prod(-(-side // unit) for side, unit in zip(sides(shape), self.footprint, strict=True))


def sides(shape: ClipShape) -> tuple[int, int, int]:
    """Return frames, height and width."""
    return shape.frames, shape.height, shape.width


def parse_shape(text: str) -> ClipShape:
    """Read FRAMESxHEIGHTxWIDTH.

    Raises:
        ConfigError: for anything else.
    """
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"{text!r} is no size; write FRAMESxHEIGHTxWIDTH, for example 16x32x32")
    return ClipShape(*map(int, parts))


def refuse_other_sizes(shape: ClipShape, footprint: tuple[int, int, int]) -> None:
    """Raise `ConfigError`, with the nearest sizes, for one that tokens do not tile; a single frame always goes."""
    below, above = [], []
    for side, unit in zip(sides(shape), footprint, strict=True):
        below.append(max(unit, side // unit * unit))
        above.append(-(-side // unit) * unit)
    if shape.frames == 1:
        below[0] = above[0] = 1
    if (ClipShape(*below), ClipShape(*above)) != (shape, shape):
        unit = "x".join(map(str, footprint))
        nearest = dict.fromkeys((str(ClipShape(*below)), str(ClipShape(*above))))
        raise ConfigError(f"clips of {shape} are no multiple of {unit} (or one frame); the nearest: {' and '.join(nearest)}")


# --- Tokens -------------------------------------------------------------------------------------------------------------------


def to_tokens(latent: Float[Tensor, "B C T H W"], patch: tuple[int, int, int]) -> Tokens:
    """Cut a latent, or pixels, into the vectors of its tokens."""
    a, b, c = patch
    return rearrange(latent, "b ch (t a) (h p) (w q) -> b t h w (ch a p q)", a=a, p=b, q=c)


def from_tokens(tokens: Tokens, patch: tuple[int, int, int]) -> Float[Tensor, "B C T H W"]:
    """Undo `to_tokens`."""
    a, b, c = patch
    return rearrange(tokens, "b t h w (ch a p q) -> b ch (t a) (h p) (w q)", a=a, p=b, q=c)


# --- Transformer --------------------------------------------------------------------------------------------------------------


def waves(coordinates: Float[Tensor, "N"], width: int, longest: float) -> Float[Tensor, "N width"]:
    """Return sines and cosines of coordinates, of wavelengths from 2 pi to about 2 pi times `longest`."""
    half = width // 2
    rates = torch.exp(-math.log(longest) * torch.arange(half, device=coordinates.device) / half)
    angles = coordinates[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def positions(grid: Sequence[int], width: int, start: Sequence[int] = (0, 0, 0)) -> Float[Tensor, "t h w D"]:
    """Return embeddings of the places of tokens: thirds of the channels for time, height and width.

    They are functions of the coordinates: cropping the grid crops the embedding.

    Args:
        grid: tokens along time, height and width.
        width: channels; time has those that three equal even parts leave over.
        start: coordinates of the first token.
    """
    part = width // 6 * 2
    parts = (width - 2 * part, part, part)
    axes = [
        waves(torch.arange(first, first + size).float(), channels, 100.0)
        for first, size, channels in zip(start, grid, parts, strict=True)
    ]
    t, h, w = grid
    return torch.cat(
        [
            axes[0][:, None, None].expand(t, h, w, -1),
            axes[1][None, :, None].expand(t, h, w, -1),
            axes[2][None, None, :].expand(t, h, w, -1),
        ],
        dim=-1,
    )


class Attention(nn.Module):
    """Multi-head attention whose queries and keys are normalised (RMS), so that logits cannot grow without bound."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joined = nn.Linear(width, 3 * width)
        self.query_norm, self.key_norm = (nn.RMSNorm(width // heads, eps=EPSILON) for _ in range(2))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Return what every token takes from all.

        On a processor the fused kernel's backward takes up to five times as long in bf16 as the products written out, whose
        memory grows with the square of the tokens.
        """
        joined = self.joined(tokens)
        if joined.device.type == "cpu" and joined.dtype == torch.bfloat16 and tokens.shape[1] <= WRITTEN_OUT:
            scale = self.query_norm.weight * self.key_norm.weight
            return self.out(cast(Tensor, WrittenOut.apply(joined, scale.to(joined.dtype), self.heads)))
        query, key, value = rearrange(joined, "b n (k h d) -> k b h n d", k=3, h=self.heads)
        query, key = normalised(query, self.query_norm), normalised(key, self.key_norm)
        return self.out(rearrange(scaled_dot_product_attention(query, key, value), "b h n d -> b n (h d)"))


def normalised(vectors: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return vectors of unit mean square, scaled, in their own precision: with mixed ones torch has no fused kernel."""
    return rms_norm(vectors, norm.normalized_shape, norm.weight.to(vectors.dtype), EPSILON)


class WrittenOut(torch.autograd.Function):
    """Attention of normalised queries and keys with a backward of its own: torch's has three times the passes over memory."""

    @staticmethod
    def forward(ctx: Any, joined: Float[Tensor, "B N joined"], scale: Float[Tensor, "d"], heads: int) -> Float[Tensor, "B N D"]:
        """Return what every token takes from all; `scale` is that of queries times that of keys."""
        query_key, value = rearrange(joined, "b n (k h d) -> k (b h) n d", k=3, h=heads).contiguous().split((2, 1))
        length = torch.linalg.vector_norm(query_key, dim=-1, keepdim=True).float()  # summed in float32 whatever it is given
        rate = (length.square() / len(scale) + EPSILON).rsqrt().to(joined.dtype)
        unit, scale = query_key * rate, scale * len(scale) ** -0.5
        share = torch.softmax(unit[0] * scale @ unit[1].mT, dim=-1)
        ctx.save_for_backward(unit, rate, value[0], scale, share)
        return rearrange(share @ value[0], "(b h) n d -> b n (h d)", h=heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Return the gradients of what is joined and of the scale."""
        unit, rate, value, scale, share = ctx.saved_tensors
        heads = gradient.shape[2] // len(scale)
        gradient = rearrange(gradient, "b n (h d) -> (b h) n d", h=heads)
        found = unit.new_empty(3, *value.shape)
        torch.bmm(share.mT, gradient, out=found[2])
        logits = torch.ops.aten._softmax_backward_data(gradient @ value.mT, share, -1, share.dtype)
        scaled = logits @ unit[1]
        torch.mul(scaled, scale, out=found[0])
        torch.bmm(logits.mT, unit[0] * scale, out=found[1])
        of_unit = found[:2]
        of_unit.addcmul_(unit, (of_unit * unit).mean(dim=-1, keepdim=True), value=-1).mul_(rate)
        of_scale = (scaled * unit[0]).sum(dim=(0, 1)) * len(scale) ** -0.5
        return rearrange(found, "k (b h) n d -> b n (k h d)", h=heads), of_scale, None


class NeighbourConvolution(nn.Module):
    """Depthwise 3x3x3 convolution over the grid of tokens; 0 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tokens) -> Tokens:
        """Return what tokens take from their neighbours."""
        features = rearrange(as_computed(tokens), "b t h w d -> b d t h w")
        made = cast(Tensor, DepthwiseConvolution.apply(features, as_computed(self.weight), as_computed(self.bias)))
        return rearrange(made, "b d t h w -> b t h w d")


def as_computed(tensor: Tensor) -> Tensor:
    """Return a tensor in the precision in which products are computed."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution of kernel 3 with a backward of its own: torch's takes seven times as long on a processor."""

    @staticmethod
    def forward(
        ctx: Any, features: Float[Tensor, "B C t h w"], weight: Float[Tensor, "C 1 3 3 3"], bias: Float[Tensor, "C"]
    ) -> Tensor:
        """Return the convolution, with zeros beyond the grid."""
        ctx.save_for_backward(features, weight)
        return conv3d(features, weight, bias, padding=1, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Convolve with the mirrored kernel; correlate with every shift of the features."""
        features, weight = ctx.saved_tensors
        into_features = conv3d(gradient, weight.flip(2, 3, 4), padding=1, groups=len(weight))
        # Frame by frame, for every shift in time: of two axes alone is there a fast gradient of the weight.
        t, plain = features.shape[2], ((1, 1), (1, 1), (1, 1), False, (0, 0), len(weight), (False, True, False))
        made, seen = by_time(gradient), by_time(features)
        into_weight = []
        for shift in (-1, 0, 1):
            first, last = max(0, -shift), min(t, t - shift)
            pair = pictures(made[first:last]), pictures(seen[first + shift : last + shift])
            into_weight.append(torch.ops.aten.convolution_backward(*pair, weight[:, :, 0], [0], *plain)[1])
        return into_features, torch.stack(into_weight, dim=2), gradient.sum(dim=(0, 2, 3, 4))


def by_time(features: Float[Tensor, "B C t h w"]) -> Float[Tensor, "t B h w C"]:
    """Return features so in memory that any stretch of time is one piece, and their channels lie together."""
    return rearrange(features, "b c t h w -> t b h w c").contiguous()


def pictures(frames: Float[Tensor, "t B h w C"]) -> Float[Tensor, "N C h w"]:
    """Return frames as a batch of pictures."""
    return rearrange(frames, "t b h w c -> (t b) c h w")


class AdaptiveNorm(nn.Module):
    """A layer norm, then a scale of 1 + `scale` and a shift, in the precision of both."""

    def forward(self, tokens: Tokens, shift: Tensor, scale: Tensor) -> Tokens:
        """Return the modulated tokens."""
        return cast(Tensor, ModulatedNorm.apply(tokens, shift, scale))


class ModulatedNorm(torch.autograd.Function):
    """`AdaptiveNorm` with a backward of its own: torch's first multiplies every token by 1."""

    @staticmethod
    def forward(ctx: Any, tokens: Tokens, shift: Tensor, scale: Tensor) -> Tokens:
        """Return the modulated tokens; the norm is taken in the precision of the tokens."""
        normed, mean, rate = torch.native_layer_norm(tokens, tokens.shape[-1:], None, None, EPSILON)
        normed, scale = normed.to(scale.dtype), 1 + scale
        ctx.save_for_backward(tokens, mean, rate, normed, scale)
        return torch.addcmul(shift, normed, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Return the gradients of tokens, shift and scale."""
        tokens, mean, rate, normed, scale = ctx.saved_tensors
        grid = tuple(range(1, gradient.dim() - 1))
        of_normed = (gradient * scale).to(tokens.dtype)
        parts = of_normed, tokens, tokens.shape[-1:], mean, rate, None, None, (True, False, False)
        of_scale = (gradient * normed).sum(dim=grid, keepdim=True)
        return torch.ops.aten.native_layer_norm_backward(*parts)[0], gradient.sum(dim=grid, keepdim=True), of_scale


class Block(nn.Module):
    """adaLN-Zero block with a convolution over neighbouring tokens before it; the identity at the start.

    References:
        Peebles and Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, Section 3.2.
    """

    def __init__(self, config: LatentVideoDiTConfig, sees: Literal["all", "frame", "place"]) -> None:
        super().__init__()
        width = config.hidden
        self.sees = sees
        self.neighbours = NeighbourConvolution(width) if config.token_convolution else None
        self.attention = Attention(width, config.heads)
        self.norm = AdaptiveNorm()
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        silence(self.modulation)

    def forward(self, tokens: Tokens, context: Context) -> Tokens:
        """Return the tokens after attention and MLP.

        Args:
            tokens: on their grid.
            context: SiLU of time and condition.
        """
        if self.neighbours is not None:
            tokens = tokens + self.neighbours(tokens)
        b1, s1, g1, b2, s2, g2 = self.modulation(context)[:, None, None, None].chunk(6, dim=-1)
        tokens = tokens + g1 * self._attend(self.norm(tokens, b1, s1))
        return tokens + g2 * self.mlp(self.norm(tokens, b2, s2))

    def _attend(self, tokens: Tokens) -> Tokens:
        """Attend over all tokens, over those of the frame, or over those of the place."""
        b, t, h, _, _ = tokens.shape
        if self.sees == "frame":
            seen = self.attention(rearrange(tokens, "b t h w d -> (b t) (h w) d"))
            return rearrange(seen, "(b t) (h w) d -> b t h w d", b=b, h=h)
        if self.sees == "place":
            seen = self.attention(rearrange(tokens, "b t h w d -> (b h w) t d"))
            return rearrange(seen, "(b h w) t d -> b t h w d", b=b, h=h)
        seen = self.attention(rearrange(tokens, "b t h w d -> b (t h w) d"))
        return rearrange(seen, "b (t h w) d -> b t h w d", t=t, h=h)


def silence(*layers: nn.Linear | nn.Conv3d) -> None:
    """Let layers give 0 until they learn."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


class Transformer(nn.Module):
    """Velocity (or noise, or clip) of a noised latent, given its time, known pixels, and a condition; 0 at the start."""

    def __init__(self, config: LatentVideoDiTConfig) -> None:
        super().__init__()
        width, inputs = config.hidden, config.latent_channels * math.prod(config.patch)
        self.patch, self.footprint, self.width = config.patch, config.footprint, width
        self.embed = nn.Linear(inputs, width)
        self.known = nn.Linear(4 * math.prod(config.footprint), width) if config.pixel_condition else None
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        kinds: dict[str, list[Literal["all", "frame", "place"]]] = {"full": ["all"], "alternating": ["frame", "place"]}
        sees = kinds[config.attention]
        self.blocks = nn.ModuleList(Block(config, sees[index % len(sees)]) for index in range(config.depth))
        self.norm = AdaptiveNorm()
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, inputs)
        silence(self.modulation, self.out)

    def forward(
        self,
        latent: Latent,
        times: Float[Tensor, "B"],
        context: Context | None = None,
        known: Float[Tensor, "B 4 T H W"] | None = None,
    ) -> Latent:
        """Return what is predicted of the latent.

        Args:
            latent: noised.
            times: in [0, 1].
            context: embedding of class or sentence.
            known: masked pixels and their mask, at the size of the clip.
        """
        tokens = self.embed(to_tokens(latent, self.patch))
        tokens = tokens + positions(tokens.shape[1:4], self.width).to(tokens.device)  # float32, and so is all that is added
        if known is not None and self.known is not None:
            tokens = tokens + self.known(to_tokens(as_computed(known), self.footprint))
        about = self.time(waves(1000 * times.float(), self.width, 10000.0))
        about = silu(about if context is None else about + context)
        for block in self.blocks:
            tokens = block(tokens, about)
        shift, scale = self.modulation(about)[:, None, None, None].chunk(2, dim=-1)
        return from_tokens(self.out(self.norm(tokens, shift, scale)), self.patch)

    @property
    def matrices(self) -> list[nn.Parameter]:
        """Return the matrices of the blocks without those of the modulation: what Muon moves."""
        names = ("attention.joined.weight", "attention.out.weight", "mlp.0.weight", "mlp.2.weight")
        return [block.get_parameter(name) for block in self.blocks for name in names]
