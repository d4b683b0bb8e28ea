"""Small systems whose training can be worked out by hand, and one with everything a trainer must keep."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus

from kinema.core.config import Config
from kinema.core.seeds import draw_rows
from kinema.core.system import Fit, Objective, Player, Stage, System, adam
from kinema.core.types import Batch, ClipShape

SHAPE = ClipShape(2, 4, 4)


def clips(rows: int, value: float | None = None) -> Batch:
    """Return clips of one value, or of uniform noise."""
    shape = (rows, 3, SHAPE.frames, SHAPE.height, SHAPE.width)
    video = torch.rand(shape) * 2 - 1 if value is None else torch.full(shape, value)
    return Batch(video, label=torch.zeros(rows, dtype=torch.long))


@dataclass(frozen=True)
class ToyConfig(Config):
    """Settings of both toys."""

    rate: float = 1.0
    """Step size."""


class Lever(System[ToyConfig]):
    """One weight w under plain gradient descent on slope * w, where the slope is the mean of the clips."""

    name = "lever"
    config_class = ToyConfig

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__(config or ToyConfig())
        self.arm = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.arm.weight)
        self.seen: list[float] = []

    @property
    def weight(self) -> float:
        return float(self.arm.weight.detach())

    @property
    def clip_shape(self) -> ClipShape:
        return SHAPE

    def stages(self) -> dict[str, Stage]:
        def descent(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=self.config.rate)

        return {"pull": (Player("hand", (self.arm,), self.objective, descent),), "rest": Fit(self.fit)}

    def objective(self, batch: Batch) -> Objective:
        return Objective({"height": (self.arm.weight * batch.video.mean()).sum()}, {"slope": batch.video.mean()})

    def fit(self, batches: Iterable[Batch]) -> dict[str, float]:
        self.seen = [float(batch.video.mean()) for batch in batches]
        return {"clips": float(len(self.seen))}


class Duel(System[ToyConfig]):
    """A maker with batch norm against a judge, with noise, a buffer that counts and a module of nobody."""

    name = "duel"
    config_class = ToyConfig

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__(config or ToyConfig())
        self.maker = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 1))
        self.judge = nn.Sequential(nn.Conv3d(3, 4, 2, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1))
        self.nobody = nn.Linear(2, 2)
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))

    @property
    def clip_shape(self) -> ClipShape:
        return SHAPE

    def stages(self) -> dict[str, Stage]:
        return {
            "duel": (
                Player("judge", (self.judge,), self.judge_objective, adam(1e-2)),
                Player("maker", (self.maker,), self.maker_objective, adam(1e-2), every=2),
            )
        }

    def made(self, batch: Batch) -> torch.Tensor:
        noise = draw_rows(lambda rows: torch.randn(rows, *batch.video.shape[1:]), len(batch)).to(batch.video.device)
        return self.maker(noise)

    def judge_objective(self, batch: Batch) -> Objective:
        self.turns += 1
        fake = self.made(batch)
        assert not fake.requires_grad, "the maker is frozen while the judge plays"
        return Objective(
            {"real": softplus(-self.judge(batch.video)).mean().float(), "fake": softplus(self.judge(fake)).mean().float()}
        )

    def maker_objective(self, batch: Batch) -> Objective:
        return Objective({"adversarial": softplus(-self.judge(self.made(batch))).mean().float()})

    def averaged(self) -> tuple[nn.Module, ...]:
        return (self.maker,)

    def sampling_pass(self, batch: Batch) -> None:
        self.maker(batch.video)
