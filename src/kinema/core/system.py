"""A system is a game: its players each own some modules and minimise their own objective."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kinema.core.config import Config, ConfigT
from kinema.core.muon import BatchedMuon
from kinema.core.types import Batch, ClipShape, Scalar, Video

OptimizerFactory = Callable[[list[nn.Parameter]], "Optimizer | Sequence[Optimizer]"]


@dataclass(frozen=True)
class Paper:
    """Where a system comes from."""

    title: str
    authors: str
    venue: str
    year: int


@dataclass(frozen=True)
class Objective:
    """What a player minimises.

    Attributes:
        terms: named, already weighted terms, summed by `total`. None: the player passes this step.
        metrics: logged, never differentiated.
    """

    terms: Mapping[str, Scalar]
    metrics: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def total(self) -> Scalar:
        """Sum of the terms."""
        return torch.stack([term.float() for term in self.terms.values()]).sum()


@dataclass(frozen=True)
class Player:
    """One player of the game.

    Attributes:
        name: noun, for example "discriminator".
        moves: the modules it owns; every other module is frozen while it plays.
        objective: batch -> what it minimises.
        optimizer: parameters -> one optimiser or several.
        every: plays once every this many steps.
    """

    name: str
    moves: tuple[nn.Module, ...]
    objective: Callable[[Batch], Objective]
    optimizer: OptimizerFactory
    every: int = 1


@dataclass(frozen=True)
class Fit:
    """A closed-form stage, such as EM for a mixture.

    Attributes:
        run: reads every batch once and returns numbers worth logging.
        whole: the batches are whole clips of the dataset, however long, instead of the system's windows.
        initial: it only gives weights a start, and is left out where another run's weights are the start.
    """

    run: Callable[[Iterable[Batch]], Mapping[str, float]]
    whole: bool = False
    initial: bool = False


Stage = tuple[Player, ...] | Fit


@contextmanager
def learning(*modules: nn.Module) -> Iterator[None]:
    """Within this context modules build a graph although another player moves: what they make is shared with their own turn."""
    frozen = [parameter for module in modules for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class Preset(Generic[ConfigT]):
    """A named, complete set of settings.

    Attributes:
        about: clips needed, minutes on which machine, what to expect: one or two sentences.
        config: the system's configuration.
        training: fields of `kinema.training.TrainConfig` that differ from its defaults.
    """

    about: str
    config: ConfigT
    training: Mapping[str, Any] = field(default_factory=dict)


class System(nn.Module, Generic[ConfigT]):
    """Networks, objectives and samplers of one paper; no optimiser stepping, device, precision, logging or files.

    Class attributes:
        name: as on the command line.
        needs: fields that a batch must carry; an instance may need others, as its configuration says.
        presets: name -> `Preset`; "tiny" (tests) is always there, and the first is the default.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    config_class: ClassVar[type[Config]]
    presets: ClassVar[Mapping[str, Preset[Any]]]
    needs: frozenset[str] = frozenset({"video"})
    config: ConfigT

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of the clips that the system is trained on and makes."""
        raise NotImplementedError

    @property
    def trained_shapes(self) -> tuple[ClipShape, ...]:
        """Shapes of all clips that it learns from, where pieces of other sizes are among them."""
        return (self.clip_shape,)

    @property
    def tokens(self) -> int | None:
        """Tokens that its transformer makes of a clip; None for a system without one."""
        return None

    @property
    def stands_still(self) -> bool:
        """Whether it learns one still background for all clips, which mirrored ones would contradict."""
        return False

    def stages(self) -> Mapping[str, Stage]:
        """Return the stages of training in order."""
        raise NotImplementedError

    def shares(self) -> Mapping[str, float]:
        """Return the weight of a stage's share in the budget of a run; stages that are not named count as 1."""
        return {}

    def skipped(self) -> Mapping[str, str]:
        """Return the stages that can learn nothing, as an earlier stage has found out, each with the reason: a sentence."""
        return {}

    def begin_anew(self) -> None:
        """Forget how far training was: another run begins with these weights."""

    def latents(self, stage: str) -> Callable[[Video], Tensor] | None:
        """Return the function whose results on the clips a stage trains on again and again, and which no longer changes.

        The run computes it once for every clip, keeps the results in a file and hands them to the stage as `Batch.latent`; a
        batch without them, such as one that was not cached, must do as well.
        """
        return None

    def open_files(self, device: torch.device) -> None:
        """Open what only training needs and no checkpoint holds, before a run writes anything.

        Args:
            device: where it will be used.

        Raises:
            ConfigError: when something is missing or is not what it should be.
        """

    def shardable(self) -> tuple[nn.Module, ...]:
        """Return the modules whose weights may be split over processes: large ones, used through their ``forward`` alone.

        Blocks, and beside them the network that calls them, for what they leave; none unless a subclass names them.
        """
        return ()

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return the modules whose weights are averaged (EMA) for sampling: all of them, unless a subclass knows better."""
        return (self,)

    def sampling_pass(self, batch: Batch) -> None:
        """Run the averaged modules forward once, as in sampling; the trainer re-estimates batch-norm statistics with it."""
        raise NotImplementedError


def identity(parameter: nn.Parameter) -> int:
    """Tell parameters apart by their memory, as a trainer may hand over views; split ones, which have none, by their id."""
    return parameter.data_ptr() or id(parameter)


def adam(
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.0,
    scales: Sequence[tuple[nn.Module, float]] = (),
) -> OptimizerFactory:
    """Return a factory of fused Adam (Kingma and Ba, 2015).

    Args:
        learning_rate: step size.
        beta1: decay of the gradient's mean.
        beta2: decay of the gradient's square.
        weight_decay: L2 penalty.
        scales: modules with the multiple of the step size at which their parameters move.
    """

    def build(parameters: list[nn.Parameter]) -> Optimizer:
        scale_of = {identity(p): scale for module, scale in scales for p in module.parameters()}
        by_scale: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_scale.setdefault(scale_of.get(identity(parameter), 1.0), []).append(parameter)
        groups = [{"params": group, "lr": scale * learning_rate} for scale, group in by_scale.items()]
        return torch.optim.Adam(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)

    return build


def muon(
    learning_rate: float,
    matrices: Sequence[nn.Parameter],
    *,
    adam_rate: float | None = None,
    beta1: float = 0.9,
    beta2: float = 0.99,
    momentum: float = 0.95,
    newton_schulz_steps: int = 4,
) -> OptimizerFactory:
    """Return a factory of Muon on some matrices and AdamW without decay on everything else.

    Args:
        learning_rate: step size of both, unless `adam_rate` says otherwise.
        matrices: 2-D parameters whose updates are orthogonalised.
        adam_rate: step size of AdamW.
        beta1: AdamW's decay of the gradient's mean.
        beta2: AdamW's decay of the gradient's square.
        momentum: of Muon.
        newton_schulz_steps: of the orthogonalisation.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the step is scaled to AdamW's size as in
        Liu et al., "Muon is Scalable for LLM Training", 2025, Section 2.2.
    """

    def build(parameters: list[nn.Parameter]) -> list[Optimizer]:
        chosen = {identity(matrix) for matrix in matrices}
        orthogonal = [p for p in parameters if identity(p) in chosen]
        others = [p for p in parameters if identity(p) not in chosen]
        rate = learning_rate if adam_rate is None else adam_rate
        built: list[Optimizer] = []
        if orthogonal:
            built.append(
                BatchedMuon(
                    orthogonal,
                    lr=learning_rate,
                    weight_decay=0.0,
                    momentum=momentum,
                    ns_steps=newton_schulz_steps,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            built.append(torch.optim.AdamW(others, lr=rate, betas=(beta1, beta2), weight_decay=0.0, fused=True))
        return built

    return build
