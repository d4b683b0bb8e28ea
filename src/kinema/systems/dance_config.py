"""Settings of Everybody Dance Now; what is left at 0 follows from the size of a frame."""

import math
from dataclasses import dataclass
from typing import Literal

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.nn.augment import FAMILIES
from kinema.nn.perceptual import PerceptualNetwork
from kinema.pose.draw import STYLES, DrawStyle
from kinema.pose.skeleton import find_skeleton


@dataclass(frozen=True)
class DanceConfig(Config):
    """Settings; the defaults are the paper's at its larger size."""

    height: int = 512
    """Of a frame in pixels."""
    width: int = 1024
    """Of a frame in pixels."""
    chain: int = 2
    """Frames that are made one from the other in training; 2 in the paper."""
    skeleton: str = "coco-18"
    """Layout of the poses."""
    style: DrawStyle = STYLES["edn"]
    """How poses are drawn, in training and ever after."""
    label_range: Literal["signed", "unit"] = "signed"
    """Drawn poses are in [-1, 1] like photographs, or in [0, 1] (release)."""
    smoothing: bool = True
    """Temporal smoothing: every frame follows from the one before it, and pairs are judged. Without, frames stand alone."""
    base: int = 64
    """Channels of the generator at full size."""
    downs: int = 0
    """How often the generator halves the frame; 0: down to 16 pixels, at least twice and at most 4 times."""
    blocks: int = 0
    """Residual blocks at the lowest resolution; 0: 3 for every halving after the first, 9 in the paper."""
    enhancer: bool = True
    """A stage "local" that adds detail at twice the resolution."""
    enhancer_blocks: int = 3
    """Residual blocks of the local enhancer."""
    background: bool = False
    """A mask chooses between what is generated and a still picture, which starts from what stands still behind the person."""
    shift: float = 0.0
    """How far beside its place everything lies in training, person and background, at most and by chance, as a share of height
    and width: of some hundred frames every one would soon be known by heart. 0 without a still background."""
    discriminator_width: int = 64
    """Channels of the discriminators' first layers."""
    scales: int = 0
    """Sizes at which frames are judged; 0: 1 below 256 pixels, 2 from there on, 3 from 512 on."""
    face: bool = True
    """A stage "face" that corrects the face."""
    face_share: float = 0.05
    """Least share of the frames in which a face is visible, for there to be a stage "face": detectors also name a nose or an
    ear here and there where no face is."""
    face_size: int = 0
    """Side of the face's box in pixels; 0: a quarter of the height, 128 in the paper."""
    face_base: int = 64
    """Channels of the face generator at full size."""
    face_downs: int = 3
    """How often the face generator halves the box."""
    face_blocks: int = 5
    """Residual blocks of the face generator."""
    face_start: Literal["random", "zero"] = "random"
    """What the face generator adds at first: what its random weights say (release), which a short training must unlearn, or
    nothing."""
    face_shift: float = 0.0
    """How far beside the face its box lies in training, at most and by chance, as a share of its side: some hundred faces would
    soon be known by heart."""
    face_augment: tuple[str, ...] = ()
    """Differentiable augmentation of what the face's discriminator sees: colour, translation, cutout; for the same reason."""
    face_terms: Literal["face", "all"] = "face"
    """The face generator minimises the face's terms (paper), or those of the whole frame too (release)."""
    alternate: int = 0
    """How often the generator is trained again after stage "face", and the face again after it; 0 in the paper."""
    discriminator_joins: int = 0
    """With face_terms "all": steps of stage "face" after which the frame's discriminator learns too."""
    feature_weight: float = 10.0
    """Weight of feature matching."""
    perceptual_weight: float = 10.0
    """Weight of the perceptual term; half of it in stage "global"."""
    perceptual_network: PerceptualNetwork = "vgg19"
    """vgg19 (paper; a file), efficientnet-lite0 (packaged, of the features extra), or none."""
    perceptual_weights: str = ""
    """File of torchvision's VGG19 weights."""
    perceptual_digest: str = ""
    """SHA-256 of that file, or how it begins; empty: not checked."""
    pixel_weight: float = 0.0
    """Weight of the mean absolute error of pixels; 0 in the paper."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    beta1: float = 0.5
    """Adam's decay of the gradient's mean."""
    beta2: float = 0.999
    """Adam's decay of the gradient's square."""

    def check(self) -> None:
        """Refuse what cannot be computed, with the nearest that can."""
        self.at_least(32, "height", "width")
        self.at_least(2, "chain")
        self.at_least(1, "base", "enhancer_blocks", "discriminator_width", "face_base", "face_downs", "face_blocks")
        self.at_least(0, "downs", "blocks", "scales", "face_size", "alternate", "discriminator_joins")
        self.at_least(0, "feature_weight", "perceptual_weight", "pixel_weight", "learning_rate")
        self.require(0 < self.face_share <= 1, "face_share", "above 0 and at most 1")
        self.require(0 <= self.shift < 1, "shift", "from 0 to below 1")
        self.require(
            self.background or not self.shift, "shift", "0 where background is False: nothing says where walls would lie"
        )
        self.require(0 <= self.face_shift <= 1, "face_shift", "from 0 to 1")
        self.require(set(self.face_augment) <= set(FAMILIES), "face_augment", f"names out of {', '.join(FAMILIES)}")
        for name in ("beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "in [0, 1)")
        self.require(not self.enhancer or self.base % 2 == 0, "base", "even, for the local enhancer has half as many channels")
        self.require(self.scales != 1 or not self.enhancer, "scales", "0, or 2 or more where a local enhancer follows")
        for name in ("height", "width"):
            self._divides(name, getattr(self, name), (2 if self.enhancer else 1) << self.depth)
        points = find_skeleton(self.skeleton)
        self.require(self.face or not self.alternate, "alternate", "0 where face is False: there is nothing to alternate with")
        judged = self.face and self.face_terms == "all"
        self.require(
            judged or not self.discriminator_joins, "discriminator_joins", "0 unless face_terms is 'all' and face True"
        )
        named = self.perceptual_weights or self.perceptual_digest
        self.require(self.perceptual_network == "vgg19" or not named, "perceptual_weights", "empty unless the network is vgg19")
        if self.face:
            self._divides("face_size", self.face_side, 1 << self.face_downs)
            self.require(self.face_side <= min(self.height, self.width), "face_size", "no larger than the frame")
            known = {"Nose", "REar", "LEar"} & set(points.joints)
            self.require(bool(known), "skeleton", "one with a nose or ears where face is True")
        if (self.perceptual_network == "none") != (self.perceptual_weight == 0):
            raise ConfigError(
                f"perceptual_network is {self.perceptual_network!r} and perceptual_weight {self.perceptual_weight}; "
                "to train without, say both: 'none' and 0"
            )

    def _divides(self, name: str, value: int, unit: int) -> None:
        """Refuse a size that halvings do not divide."""
        below = value // unit * unit
        near = f"{below} or {below + unit}" if below else str(unit)
        self.require(value % unit == 0, name, f"a multiple of {unit}; the nearest: {near}")

    @property
    def coarse(self) -> tuple[int, int]:
        """Height and width at which stage "global" trains."""
        part = 2 if self.enhancer else 1
        return self.height // part, self.width // part

    @property
    def depth(self) -> int:
        """How often the generator halves the frame."""
        return self.downs or min(4, max(2, round(math.log2(min(self.coarse) / 16))))

    @property
    def depth_blocks(self) -> int:
        """Residual blocks at the lowest resolution."""
        return self.blocks or 3 * max(1, self.depth - 1)

    @property
    def judged_scales(self) -> int:
        """Sizes at which frames are judged."""
        least = 2 if self.enhancer else 1
        return self.scales or min(3, max(least, (min(self.height, self.width) // 128).bit_length()))

    @property
    def face_side(self) -> int:
        """Side of the face's box."""
        return self.face_size or max(1, round(self.height / 4) >> self.face_downs) << self.face_downs
