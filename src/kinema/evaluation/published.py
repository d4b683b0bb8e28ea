"""Networks whose weights others publish: files by path, checked before use, and the resize that they were trained with."""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinema.core.errors import EvaluationError


@dataclass(frozen=True)
class Published:
    """A file that somebody publishes.

    Attributes:
        file: its usual name.
        sha256: its digest.
        where: an address, or words that lead there.
    """

    file: str
    sha256: str
    where: str


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Attributes:
        path: of the file.
        sha256: of its content.
        program: the TorchScript network; None where the file holds tensors.
        state: names and tensors; None where the file holds a program.
        notes: a warning where nothing vouches for the file.
    """

    path: Path
    sha256: str
    program: Any
    state: Any
    notes: tuple[str, ...]

    def fill(self, network: nn.Module) -> nn.Module:
        """Give the tensors to a network of exactly these names and shapes, and return it ready to describe.

        Raises:
            EvaluationError: when the file holds something else.
        """
        try:
            network.load_state_dict(self.state)
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split())
            reason = reason if len(reason) < 160 else f"{reason[:160]}..."
            raise EvaluationError(f"{self.path} does not hold the weights of {type(network).__name__}: {reason}") from None
        return network.eval().requires_grad_(False)


def load_weights(feature: str, path: Path | None, published: Sequence[Published], sha256: str | None = None) -> Weights:
    """Read a file of weights: tensors, without running anything in it, or a TorchScript program.

    Args:
        feature: name of the feature network.
        path: the file.
        published: files that are known.
        sha256: digest that the file must have, which vouches for a file that is not known.

    Raises:
        EvaluationError: when the file is missing, has another digest or is damaged, or is a program that nothing vouches for:
            a program may do more than compute.
    """
    wanted = "; or ".join(f"{one.file} from {one.where} (SHA-256 {one.sha256})" for one in published)
    if path is None:
        raise EvaluationError(f"--features {feature} needs --weights FILE: {wanted}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(
            f"the weights {path} cannot be read ({error.strerror}); --features {feature} needs {wanted}"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise EvaluationError(f"{path} has the SHA-256 {found} and --weights-sha256 is {sha256}; get the file again")
    vouched = sha256 is not None or found in {one.sha256 for one in published}
    program = _is_program(content)
    if program and not vouched:
        raise EvaluationError(
            f"{path} is a TorchScript program with the SHA-256 {found}, which is none that kinema knows ({wanted}); "
            "if you trust it, give that number as --weights-sha256"
        )
    loaded = _load(content, program, f"{path} is damaged or holds no weights of PyTorch; --features {feature} needs {wanted}")
    note = f"The weights {path.name} are not verified: their SHA-256 {found} is none that kinema knows for {feature}."
    notes = () if vouched else (note,)
    return Weights(path, found, loaded if program else None, None if program else loaded, notes)


def call_program(program: Any, weights: Weights, pixels: Tensor, **options: bool) -> Tensor:
    """Run a TorchScript network.

    Raises:
        EvaluationError: when it does not take these pixels or options, so that it is another network.
    """
    try:
        return program(pixels, **options)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise EvaluationError(
            f"{weights.path} does not take {tuple(pixels.shape)} with {', '.join(options)}: {reason}"
        ) from None


def resize(pixels: Float[Tensor, "*n h w"], size: int) -> Float[Tensor, "*n size size"]:
    """Resize bilinearly as TensorFlow 1 does, whose pictures the published networks were measured with.

    Output pixel i lies at input position i * (inputs / outputs): corners are sampled, not centres of pixels as in
    `torch.nn.functional.interpolate`, and nothing is averaged when a picture becomes smaller. Width first, then height.

    References:
        TensorFlow 1.x ``tf.image.resize_bilinear(align_corners=False)``.
    """
    return _resize(_resize(pixels, size, -1), size, -2)


def _resize(pixels: Tensor, size: int, dim: int) -> Tensor:
    length = pixels.shape[dim]
    if length == size:
        return pixels
    position = torch.arange(size, device=pixels.device) * (length / size)
    low = position.long()
    shape = [1] * pixels.ndim
    shape[dim] = size
    weight = (position - low).to(pixels.dtype).reshape(shape)
    one, other = (pixels.index_select(dim, index) for index in (low, (low + 1).clamp(max=length - 1)))
    return torch.lerp(one, other, weight)


def _is_program(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _load(content: bytes, program: bool, complaint: str) -> Any:
    try:
        if not program:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the published programs exist in this form alone
            return torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except Exception:  # what is damaged fails in as many ways as there are bytes
        raise EvaluationError(complaint) from None
