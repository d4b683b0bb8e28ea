"""How a diffusion model is sampled: the numbers a caller may choose. Imports no torch, for the command line."""

from dataclasses import dataclass
from typing import Literal, get_args

from kinema.core.config import Config

Sampler = Literal["ancestral", "ddim", "euler", "heun", "dpm-solver"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)


@dataclass(frozen=True)
class Sampling(Config):
    """How noise becomes a clip."""

    sampler: Sampler = "euler"
    """ancestral (DDPM), ddim, euler, heun (two evaluations a step), dpm-solver (DPM-Solver++ of second order, multistep)."""
    steps: int = 30
    """Steps from noise to a clip."""
    guidance: float = 1.0
    """Weight of classifier-free guidance: 1 takes the condition as it is, more exaggerates it, 0 ignores it."""
    known_guidance: float = 1.0
    """The same of known pixels, where a clip is completed: more follows them more closely. Costs an evaluation a step."""
    eta: float = 0.0
    """Fresh noise of ddim: 0 none, 1 as much as ancestral sampling with the posterior's variance."""

    def check(self) -> None:
        """Refuse what cannot be sampled."""
        self.require(self.sampler in SAMPLERS, "sampler", f"one of {', '.join(SAMPLERS)}")
        self.at_least(1, "steps")
        for name in ("guidance", "known_guidance"):
            self.require(0 <= getattr(self, name) <= 100, name, "from 0 to 100")
        self.require(0 <= self.eta <= 1, "eta", "from 0 to 1")
        self.require(not self.eta or self.sampler == "ddim", "eta", f"0 for the sampler {self.sampler}; ddim alone has it")
