"""The budget of a run and that of its stages."""

import pytest

from kinema.systems import SYSTEMS
from kinema.training.run import played, share_of
from kinema.training.trainer import TrainConfig


@pytest.mark.parametrize("name", ["dance", "latent-video-dit", "pose-knows"])
@pytest.mark.parametrize("steps", [20, 21, 1000])
def test_the_steps_of_all_stages_are_those_of_the_budget(name: str, steps: int) -> None:
    """Each rounded up by itself they were more: 21 of 20."""
    system_class = SYSTEMS[name]
    system = system_class(system_class.presets["tiny"].config)
    stages = [stage for stage in played(system) if stage not in system.skipped()]
    shares = [share_of(system, TrainConfig(steps=steps), stage).steps or 0 for stage in stages]
    assert sum(shares) == steps
    weights = [system.shares().get(stage, 1.0) for stage in stages]
    assert all(abs(share - steps * weight / sum(weights)) <= 1 for share, weight in zip(shares, weights, strict=True))


def test_a_stage_has_a_step_at_least() -> None:
    system = SYSTEMS["dance"](SYSTEMS["dance"].presets["tiny"].config)
    assert all(share_of(system, TrainConfig(steps=1), stage).steps == 1 for stage in played(system))
