r"""VGAN's discriminator as a recogniser of actions.

Vondrick, Pirsiavash and Torralba, NIPS 2016. Section of the paper -> object (the section has no numbered equation):

- Section 3.3, "replace the last layer with a K-way softmax" -> `VGANRecogniser.head`
- Section 3.3, dropout before it -> `nn.Dropout3d` in `VGANRecogniser.head`
- Section 3.3, fine-tuning, the last layer only, random initialisation -> `kinema.evaluation.probe`

What the text leaves open follows the release: dropout takes whole channels of the last feature map, with probability 1/2; Adam
with 2e-4 and 0.5, 1,000 steps of 256 clips. The last layer is never spectrally normalised: its logits must be free to grow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kinema.core.errors import ConfigError
from kinema.core.system import Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Video
from kinema.nn.convolution import initialise_dcgan
from kinema.nn.discriminators import StridedConfig, VideoNetwork


@dataclass(frozen=True)
class VGANRecogniserConfig(StridedConfig):
    """Settings of the recogniser; the defaults are those of the paper on UCF101."""

    classes: int = 101
    """Classes K; filled in from the labels of the dataset."""
    dropout: float = 0.5
    """Probability with which a channel of the last feature map is dropped while training."""
    discriminator_norm: Literal["batch", "spectral"] = "batch"
    """Normalisation of the convolutions; that of the discriminator whose weights are taken over."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    beta1: float = 0.5
    """Adam's decay of the gradient's mean."""
    beta2: float = 0.999
    """Adam's decay of the gradient's square."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        super().check()
        self.at_least(2, "classes")
        self.at_least(0, "learning_rate")
        for name in ("dropout", "beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "in [0, 1)")

    def for_labels(self, labels: Sequence[str]) -> "VGANRecogniserConfig":
        """Recognise the classes that there are."""
        return replace(self, classes=len(labels)) if labels else self


class VGANRecogniser(System[VGANRecogniserConfig]):
    """Recognises the class of a clip with the discriminator's convolutions."""

    name = "vgan-recogniser"
    paper = Paper("Generating Videos with Scene Dynamics", "Carl Vondrick, Hamed Pirsiavash, Antonio Torralba", "NIPS", 2016)
    config_class = VGANRecogniserConfig
    needs = frozenset({"video", "label"})
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "A few hundred labelled clips, some minutes on two cores: narrow.",
            VGANRecogniserConfig(discriminator_width=24, discriminator_norm="spectral"),
            {"batch_size": 16, "steps": 500},
        ),
        "small-data": Preset(
            "Hundreds to thousands of labelled clips on a GPU: spectral norm, full width.",
            VGANRecogniserConfig(discriminator_norm="spectral"),
            {"batch_size": 64, "steps": 1000},
        ),
        "paper": Preset(
            "The paper's UCF101: 101 classes, and the release's schedule.",
            VGANRecogniserConfig(),
            {"batch_size": 256, "steps": 1000},
        ),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            VGANRecogniserConfig(frames=8, size=16, discriminator_width=4, classes=2),
            {"batch_size": 4, "steps": 4},
        ),
    }

    def __init__(self, config: VGANRecogniserConfig) -> None:
        super().__init__(config)
        self.features = VideoNetwork(config, config.classes, config.discriminator_norm).features
        widest, left = config.widths(config.discriminator_width)[-1], (config.frames >> config.doublings, 4, 4)
        self.head = nn.Sequential(nn.Dropout3d(config.dropout), nn.Conv3d(widest, config.classes, left))
        self.apply(initialise_dcgan)

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a clip."""
        return ClipShape(self.config.frames, self.config.size, self.config.size)

    def stages(self) -> Mapping[str, Stage]:
        """Return the one stage with its one player."""
        c = self.config
        learner = adam(c.learning_rate, c.beta1, c.beta2)
        return {"recognition": (Player("recogniser", (self,), self.recognition_objective, learner),)}

    def recognition_objective(self, batch: Batch) -> Objective:
        """Cross-entropy between the K-way softmax and the labels.

        Raises:
            ConfigError: for a batch without labels, or with one that is none of the K classes.
        """
        if batch.label is None or int(batch.label.max()) >= self.config.classes:
            found = "no label" if batch.label is None else f"class {int(batch.label.max())}, counted from 0"
            raise ConfigError(
                f"a clip has {found}, and {self.name} is set to {self.config.classes} classes; train with --classes"
            )
        logits = self.recognise(batch.video)
        right = (logits.argmax(dim=1) == batch.label).float().mean()
        return Objective({"cross_entropy": cross_entropy(logits.float(), batch.label)}, {"accuracy": right})

    def recognise(self, video: Video) -> Float[Tensor, "B K"]:
        """Return the logits of the K classes."""
        return rearrange(self.head(self.features(video)), "b k 1 1 1 -> b k")

    def sampling_pass(self, batch: Batch) -> None:
        """Recognise the batch."""
        self.recognise(batch.video)
