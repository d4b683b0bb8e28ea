"""Abilities: what a trained system can do, found by asking `isinstance(system, Protocol)`.

`PROTOCOLS` names every ability the command line and the web pages offer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kinema.core.sampling import Sampling
from kinema.core.types import Batch, ClipShape, Image, Labels, Scalar, Video


@runtime_checkable
class Generates(Protocol):
    """Makes clips out of seeds."""

    def generate(self, seeds: Sequence[int], *, label: Labels | None = None) -> Video:
        """Return one clip per seed; clip i depends on ``seeds[i]`` (and its label) alone."""
        ...


@runtime_checkable
class Decomposes(Protocol):
    """Makes clips out of seeds together with the streams they are composed of."""

    def streams(self, seeds: Sequence[int]) -> Mapping[str, Video]:
        """Return named videos in [-1, 1], in the order in which they are shown; the last is the result."""
        ...


@runtime_checkable
class Interpolates(Protocol):
    """Walks between two seeds in code space."""

    def interpolate(self, start: int, end: int, steps: int) -> Video:
        """Return `steps` clips whose codes lead from seed `start` to seed `end`."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """Continues a past."""

    past_frames: int

    def predict(self, past: Float[Tensor, "B C past H W"], *, seeds: Sequence[int]) -> Video:
        """Return one future per clip of the past, which holds `past_frames` frames."""
        ...


@runtime_checkable
class Forecasts(Protocol):
    """Continues a past of frames and poses: possible futures as poses first, then as video."""

    past_frames: int
    """Frames (and poses) of the past; the last of them is the current one."""
    future_frames: int
    """Poses of a future."""
    skeleton: str
    """Name of the joints' layout."""

    def forecast_poses(
        self, past: Video, poses: Float[Tensor, "B past J 3"], *, seeds: Sequence[int], futures: int
    ) -> Float[Tensor, "B N T J 3"]:
        """Return `futures` possible futures of every past, in pixels of its frames.

        Future n of clip i depends on ``seeds[i]``, n and that clip alone: fewer futures are the first of more. A joint that is
        missing (confidence 0) in the current pose stays missing.
        """
        ...

    def render_poses(self, image: Image, poses: Float[Tensor, "B T J 3"]) -> Video:
        """Return one frame per pose, of the image's size; the first of the 1 + `future_frames` poses is the image's own."""
        ...


@runtime_checkable
class ForecastsTypical(Protocol):
    """Forecasts one future without chance, beside the many: a line in the best-of-n plot."""

    def forecast_typical(self, past: Video, poses: Float[Tensor, "B past J 3"]) -> Float[Tensor, "B T J 3"]:
        """Return the future that the system takes for the most likely one, in pixels."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Encodes clips and decodes them again."""

    def reconstruct(self, video: Video) -> Video:
        """Return the clips as the system remembers them."""
        ...


@runtime_checkable
class Scores(Protocol):
    """Judges clips as its discriminator does; used to watch over-fitting."""

    def score(self, video: Video) -> Float[Tensor, "B"]:
        """Return a logit per clip: positive means judged real."""
        ...


@runtime_checkable
class Recognises(Protocol):
    """Tells to which of K classes a clip belongs."""

    def recognise(self, video: Video) -> Float[Tensor, "B K"]:
        """Return the logits of the classes, in the order of the labels that the system was trained on."""
        ...


@runtime_checkable
class Transfers(Protocol):
    """Shows the person that it was trained on in the poses that it is given."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of its frames in pixels."""
        ...

    @property
    def skeleton(self) -> str:
        """Name of the layout of its poses."""
        ...

    @property
    def style(self) -> Any:
        """How poses are drawn for it: settings of `kinema.pose.draw`."""
        ...

    def transfer(self, pose: Float[Tensor, "B T J 3"], *, previous: Image | None = None) -> Video:
        """Return one frame per pose; each follows from the one before it.

        Args:
            pose: joints of consecutive frames, (x, y, confidence) in pixels of its own frames; confidence 0 is missing.
            previous: the last frame of the part before this one; None at the beginning.
        """
        ...


@runtime_checkable
class Diffuses(Protocol):
    """Makes clips out of noise in steps; how many, how and at what size is the caller's choice."""

    @property
    def sampling(self) -> Sampling:
        """How it samples unless told otherwise."""
        ...

    @property
    def footprint(self) -> tuple[int, int, int]:
        """Frames, height and width of which a clip's must be multiples; a single frame always is one."""
        ...

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it can be asked for: "label", "caption", both or nothing."""
        ...

    def diffuse(
        self,
        seeds: Sequence[int],
        *,
        shape: ClipShape | None = None,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Video:
        """Return one clip per seed.

        Args:
            seeds: clip i depends on ``seeds[i]``, its label and its caption alone.
            shape: of the clips; None for those it was trained on.
            label: class index per clip.
            caption: one sentence per clip.
            sampling: None for its own.

        Raises:
            ConfigError: for a shape that is no multiple of the footprint (naming the nearest), or a condition it does not know.
        """
        ...

    def trajectory(
        self,
        seeds: Sequence[int],
        moments: int,
        *,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Sequence[Video]:
        """Return what sampling as `diffuse` does looks like at `moments` evenly spread moments, from noise to the clip."""
        ...

    def noised(self, video: Video, moments: int, *, seed: int) -> Sequence[Video]:
        """Return clips as the forward process destroys them at `moments` evenly spread moments, from the clip to noise."""
        ...


@runtime_checkable
class Inpaints(Protocol):
    """Completes clips of which some pixels are known: future, past, what lies between, a hidden box."""

    def inpaint(
        self,
        video: Video,
        known: Float[Tensor, "B 1 T H W"],
        *,
        seeds: Sequence[int],
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        paste: bool = True,
    ) -> Video:
        """Return the clips with what is unknown filled in.

        Args:
            video: unknown pixels may hold anything; they are not looked at.
            known: 1 where a pixel is known, 0 where it is not.
            seeds: clip i depends on ``seeds[i]``, its pixels and its condition alone.
            label: class index per clip.
            caption: one sentence per clip.
            sampling: None for its own.
            paste: give known pixels back as they came; without, as the system remembers them.

        Raises:
            ConfigError: as `Diffuses.diffuse`.
        """
        ...


@runtime_checkable
class Validates(Protocol):
    """Measures on held-out clips how well it has learnt: the curve that tells learning from learning by heart."""

    def validate(self, batch: Batch, stage: str) -> Mapping[str, Scalar]:
        """Return numbers about a batch, each a mean over its clips; none for a stage that has none.

        Losses fall as the system learns. Noise may be drawn from torch's generator: every call begins at the same state.

        Args:
            batch: clips that are not trained on, with what the system needs, and without latents.
            stage: the stage that is trained, or was the last to be.
        """
        ...


PROTOCOLS: Mapping[str, type] = {
    "generate": Generates,
    "streams": Decomposes,
    "interpolate": Interpolates,
    "predict": Predicts,
    "forecast": Forecasts,
    "reconstruct": Reconstructs,
    "score": Scores,
    "recognise": Recognises,
    "transfer": Transfers,
    "diffuse": Diffuses,
    "inpaint": Inpaints,
    "validate": Validates,
}


def abilities(system: object) -> list[str]:
    """Name what a system (an instance or a class) can do."""
    return [name for name, protocol in PROTOCOLS.items() if all(hasattr(system, part) for part in _parts(protocol))]


def _parts(protocol: type) -> list[str]:
    members = {**getattr(protocol, "__annotations__", {}), **vars(protocol)}
    return [name for name in members if not name.startswith("_")]
