"""Settings of a probe, apart from it: the command line reads them without torch."""

from dataclasses import dataclass

from kinema.core.config import Config


@dataclass(frozen=True)
class ProbeSettings(Config):
    """How the features are probed."""

    seeds: int = 3
    """Seeds: each has its own test groups, labelled clips, first weights and noise."""
    steps: int = 300
    """Steps of random initialisation and of fine-tuning alike, at every fraction."""
    batch_size: int = 16
    """Clips of a step; fewer where fewer are labelled."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    dropout: float = 0.5
    """Probability with which a channel is dropped before the last layer."""
    regularisation: float = 1.0
    """Inverse strength C of the logistic regression's L2 penalty, on features of unit variance."""
    held_out: float = 0.3
    """Share of the groups, or with --within of every video, that is tested on; without effect where the dataset's own test
    split is taken."""
    within: bool = False
    """Test on other stretches of the same groups: no group is held out, but the end of every video, or a test split of the
    dataset that holds the same groups."""
    spread: bool = False
    """Take labelled clips at random out of all training videos: few labels for each of many people. Without: whole videos,
    so that fewer labels are also fewer people."""
    flip: bool = False
    """Mirror half of the clips while training; not where left and right matter."""

    def check(self) -> None:
        """Refuse values out of range."""
        self.at_least(1, "seeds", "steps", "batch_size")
        self.require(0 < self.held_out < 1, "held_out", "above 0 and below 1")
        self.require(0 <= self.dropout < 1, "dropout", "in [0, 1)")
        self.require(self.learning_rate > 0, "learning_rate", "more than 0")
        self.require(self.regularisation > 0, "regularisation", "more than 0")
