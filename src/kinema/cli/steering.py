"""What a caller may ask of a system that diffuses or completes: a class, a sentence, how it samples, and how large a clip."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kinema.core.config import Config, override
from kinema.core.errors import CheckpointError, ConfigError, accepted
from kinema.core.sampling import Sampler, Sampling
from kinema.core.shape import ClipShape

if TYPE_CHECKING:
    from kinema.cli.trained import Trained

SAMPLED_FLOATS = 400
"""Numbers that sampling holds per number of the clip, where a system does not say: a U-Net at the size of the clip with 64
channels, of which some six maps live at a time, twice for guidance, over the three channels of a clip."""

Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Real = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Steering(Config):
    """What systems understand that make clips in steps."""

    label: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ()
    """Class of the clips by name; several, each with its own --label, take turns over the seeds."""
    text: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="SENTENCE", help_behavior_hint="")] = ()
    """Sentence that says what is to be seen; several take turns as labels do."""
    steps: Number = None
    """Steps from noise to a clip. Default of this and what follows: the system's own."""
    guidance: Real = None
    """Weight of classifier-free guidance: 1 takes the condition as it is, more exaggerates it, 0 ignores it."""
    sampler: Annotated[Sampler | None, tyro.conf.arg(help_behavior_hint="")] = None
    """How a step is taken."""
    eta: Real = None
    """Fresh noise of ddim: 0 none, 1 as much as ancestral sampling."""

    @property
    def chosen_sampling(self) -> dict[str, Any]:
        """What is said of sampling."""
        said = {field.name: getattr(self, field.name, None) for field in fields(Sampling)}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def said(self) -> list[str]:
        """Options that are given."""
        return [f"--{name}" for name, value in (("label", self.label), ("text", self.text)) if value] + [
            f"--{name.replace('_', '-')}" for name in self.chosen_sampling
        ]

    def check(self) -> None:
        """Refuse what no sampler takes."""
        super().check()
        override(Sampling("ddim"), self.chosen_sampling)  # which takes every eta; the system's own sampler may not


@dataclass(frozen=True)
class Steered:
    """What is asked of a system, in its own terms.

    Attributes:
        labels: class indices that take turns; none for no class.
        captions: sentences that take turns; none for no text.
        sampling: None for the system's own.
    """

    labels: tuple[int, ...]
    captions: tuple[str, ...]
    sampling: Sampling | None

    def labels_of(self, numbers: Sequence[int]) -> list[int] | None:
        """Return the classes of the clips with these numbers, counted from 0."""
        return [self.labels[number % len(self.labels)] for number in numbers] if self.labels else None

    def captions_of(self, numbers: Sequence[int]) -> list[str] | None:
        """Return the sentences of the clips with these numbers, counted from 0."""
        return [self.captions[number % len(self.captions)] for number in numbers] if self.captions else None


def steered(options: Steering, trained: "Trained") -> Steered:
    """Return what the options ask of a system.

    Raises:
        CheckpointError: for options that the system does not have, naming those that do.
        ConfigError: for a class that it does not know.
    """
    if options.chosen_sampling:
        refuse_undiffusing(trained, next(iter(options.chosen_sampling)).replace("_", "-"))
    known = trained.conditions
    for condition, said in (("label", options.label), ("caption", options.text)):
        if said and condition not in known:
            others = {"label": "--label", "caption": "--text"}
            takes = " and ".join(option for key, option in others.items() if key in known) or "no condition at all"
            raise CheckpointError(f"{trained.metadata.system} of {trained.name} knows no {condition}; it takes {takes}")
    if options.guidance is not None and not (options.label or options.text):
        raise ConfigError("--guidance exaggerates a class or a sentence, and none is asked for: give --label or --text with it")
    names = [str(name) for name in trained.metadata.dataset.get("labels", ())]
    for name in options.label:
        if name not in names:
            raise ConfigError(f"{trained.name} knows no class {name!r}; {accepted(name, names)}")
    unknown_words = getattr(trained.system, "unknown_words", lambda caption: [])
    for sentence in options.text:
        if strange := unknown_words(sentence):
            print(f"{trained.name} was trained without the words {', '.join(strange)} and takes them for one unknown word")
    sampling = trained.sampling(options.chosen_sampling) if options.chosen_sampling else None
    return Steered(tuple(names.index(name) for name in options.label), options.text, sampling)


def say_untrained(trained: "Trained", shape: ClipShape) -> None:
    """Say in one line when clips are made of a size that the system did not learn from."""
    known = trained.system.trained_shapes
    if shape not in known:
        sizes = ", ".join(str(size) for size in known)
        print(f"note: {trained.name} was trained on clips of {sizes} and not of {shape}, which may look worse")


def refuse_undiffusing(trained: "Trained", option: str) -> None:
    """Raise `CheckpointError` for an option of systems that diffuse when the system is none, naming those that are."""
    from kinema.core.tasks import abilities
    from kinema.systems import SYSTEMS

    if not trained.diffuses:
        able = ", ".join(name for name, system in SYSTEMS.items() if "diffuse" in abilities(system)) or "none"
        raise CheckpointError(f"{trained.metadata.system} makes a clip at once and has no --{option}; systems that do: {able}")


def read_size(text: str) -> ClipShape:
    """Read ``16x48x32``: frames, height, width.

    Raises:
        ConfigError: for anything else.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if not match:
        raise ConfigError(f"--size {text!r} is no size; write frames x height x width, such as 16x48x32")
    return ClipShape(*map(int, match.groups()))


# --- Memory -------------------------------------------------------------------------------------------------------------------


def sampling_bytes(trained: "Trained", shape: ClipShape, batch: int = 1) -> int:
    """Return how much memory sampling takes: what the system says, or an estimate."""
    says = getattr(trained.system, "sampling_memory", None)
    if says is not None:
        return int(says(shape, batch))
    return 4 * SAMPLED_FLOATS * 3 * batch * shape.frames * shape.height * shape.width


def fitting_batch(trained: "Trained", shape: ClipShape, wanted: int) -> int:
    """Return how many clips fit into memory at once, at most `wanted`; says so when it is fewer.

    Raises:
        ConfigError: when not even one fits, naming the largest that does.
    """
    from kinema.training.memory import free_memory

    free = free_memory(trained.device)
    if free is None:
        return wanted
    if (needed := sampling_bytes(trained, shape)) > free:
        fits = largest_fitting(trained, shape, free)
        remedy = f"the largest that fits is {fits}" if fits else "nothing of its kind fits"
        raise ConfigError(f"a clip of {shape} needs {amount(needed)} of memory and {amount(free)} are free; {remedy}")
    batch = max(count for count in range(1, wanted + 1) if count == 1 or sampling_bytes(trained, shape, count) <= free)
    if batch < wanted:
        print(f"{batch} of {wanted} clips at once: {amount(free)} of memory are free")
    return batch


def largest_fitting(trained: "Trained", shape: ClipShape, free: int) -> ClipShape | None:
    """Return the clip with most frames that fits into `free` bytes, in smaller frames where not even one of this size does."""
    frames, high, wide = getattr(trained.system, "footprint", (1, 1, 1))

    def fits(count: int, height: int, width: int) -> bool:
        return sampling_bytes(trained, ClipShape(count, height, width)) <= free

    height, width = shape.height, shape.width
    while not fits(1, height, width):
        if (height, width) == (high, wide):
            return None
        height, width = max(high, height // 2 // high * high), max(wide, width // 2 // wide * wide)
    low, above = 0, shape.frames // frames + 1  # in multiples; the first fits or is a single frame
    while above - low > 1:
        middle = (low + above) // 2
        low, above = (middle, above) if fits(middle * frames, height, width) else (low, middle)
    return ClipShape(max(1, low * frames), height, width)


def amount(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
