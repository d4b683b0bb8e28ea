"""Small systems whose training can be worked out by hand, and one with everything a trainer must keep."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus

from kinema.core.config import Config
from kinema.core.seeds import draw_rows
from kinema.core.system import Fit, Objective, Player, Stage, System, adam, muon
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


class Storey(nn.Module):
    """A block with matrices, and weights of three and one rows, fewer than or no multiple of the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 48), nn.Linear(48, 12)
        self.mix = nn.Conv3d(3, 3, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows + self.gain * self.down(self.up(self.norm(rows)).relu())
        return rows + self.mix(rows.view(-1, 3, 2, 1, 2)).flatten(1)


class Tower(System[ToyConfig]):
    """Blocks that can be split, in a maker with batch norm and in a judge that is frozen by turns; a roof that stays whole."""

    name = "tower"
    config_class = ToyConfig

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__(config or ToyConfig())
        self.foot = nn.Sequential(nn.Linear(96, 12, bias=False), nn.BatchNorm1d(12))
        self.storeys = nn.ModuleList(Storey() for _ in range(2))
        self.roof = nn.Linear(12, 96)
        self.judge = nn.Sequential(nn.Conv3d(3, 4, 2, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 1))
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))

    @property
    def clip_shape(self) -> ClipShape:
        return SHAPE

    def shardable(self) -> tuple[nn.Module, ...]:
        return (self.foot, *self.storeys, self.judge, self.judge[3])

    def stages(self) -> dict[str, Stage]:
        matrices = [weight for storey in self.storeys for weight in (storey.up.weight, storey.down.weight)]
        maker = (self.foot, self.storeys, self.roof)
        return {
            "build": (
                Player("judge", (self.judge,), self.judge_objective, adam(1e-2, scales=((self.judge[3], 0.5),))),
                Player("maker", maker, self.maker_objective, muon(4e-3, matrices)),
            )
        }

    def made(self, batch: Batch) -> torch.Tensor:
        rows = self.foot(batch.video.flatten(1))
        for storey in self.storeys:
            rows = storey(rows)
        return self.roof(rows).view_as(batch.video)

    def judge_objective(self, batch: Batch) -> Objective:
        self.turns += 1
        real, fake = self.judge(batch.video), self.judge(self.made(batch))
        return Objective({"real": softplus(-real).mean().float(), "fake": softplus(fake).mean().float()})

    def maker_objective(self, batch: Batch) -> Objective:
        made = self.made(batch)
        error = (made - batch.video).square().mean()
        return Objective({"error": error.float(), "adversarial": softplus(-self.judge(made)).mean().float()})

    def averaged(self) -> tuple[nn.Module, ...]:
        return (self.foot, self.storeys, self.roof)

    def sampling_pass(self, batch: Batch) -> None:
        self.made(batch)
