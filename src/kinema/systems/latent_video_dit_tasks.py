"""What the latent video transformer is given of a clip: nothing, frames, or what surrounds a box (`TASKS`)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kinema.core.types import ClipShape, Video

Mask = Float[Tensor, "B 1 T H W"]

TASKS: Mapping[str, float] = {
    "nothing": 0.40,
    "first frame": 0.18,
    "first frames": 0.10,
    "last frames": 0.07,
    "first and last": 0.08,
    "some frames": 0.03,
    "around a box": 0.07,
    "around a track": 0.07,
}
"""What is known of a training clip -> share of the clips. A box stands still; a track moves in a straight line."""


def hold(video: Float[Tensor, "B C T H W"], frames: int) -> Float[Tensor, "B C held H W"]:
    """Return a single frame held for `frames`; longer clips as they are."""
    return video.expand(-1, -1, frames, -1, -1) if video.shape[2] == 1 else video


def with_mask(video: Video, known: Mask) -> Float[Tensor, "B 4 T H W"]:
    """Return the known pixels with their mask as a fourth channel.

    An unknown pixel shows what is known at its place at the nearest time, or 0 where nothing ever is: a copy of the nearest
    frame is where a completion begins, and every token sees it without attending to that frame.
    """
    given = known > 0.5
    source = nearest_known(given)
    there = source.clamp(0, known.shape[2] - 1)
    shown = video.new_empty(len(video), 4, *video.shape[2:])
    torch.gather(video, 2, there.long().expand(-1, 3, -1, -1, -1), out=shown[:, :3])
    shown[:, :3] *= source == there
    shown[:, 3:] = given
    return shown


def nearest_known(given: Bool[Tensor, "B 1 T H W"]) -> Int[Tensor, "B 1 T H W"]:
    """Return the nearest frame in which every place is known, the earlier of two; outside of 0 to T - 1 where there is none.

    What was last known spreads to ever later frames by 1, 2, 4 and so on, and what is known next to earlier ones.
    """
    frames = given.shape[2]
    kind = torch.int16 if 2 * frames <= torch.iinfo(torch.int16).max else torch.int32
    times = torch.arange(frames, dtype=kind, device=given.device)[:, None, None]
    before = given * (times + frames) - frames
    after = given * (2 * frames - times) - 2 * frames  # negative
    step = 1
    while step < frames:
        before[:, :, step:] = torch.maximum(before[:, :, step:], before[:, :, :-step])
        after[:, :, :-step] = torch.maximum(after[:, :, :-step], after[:, :, step:])
        step *= 2
    return torch.where(times - before <= -after - times, before, -after)


def task_masks(numbers: Float[Tensor, "B 8"], shape: ClipShape) -> Mask:
    """Return what is known of every clip, 1 or 0, for the tasks of `TASKS`.

    Args:
        numbers: uniform in [0, 1): the task, how many frames, the box's height, width, and its corner at both ends.
        shape: of the clips.
    """
    shares = torch.tensor(list(TASKS.values()), device=numbers.device).cumsum(0)
    task = torch.searchsorted(shares / shares[-1], numbers[:, 0].contiguous(), right=True).clamp(max=len(TASKS) - 1)
    t = torch.arange(shape.frames, device=numbers.device)
    last = max(1, shape.frames - 1)
    few = 1 + (numbers[:, 1:2] * max(1, shape.frames // 2)).long()  # 1 to half of the frames
    scattered = ((t * 0.6180339887 + numbers[:, 1:2]) % 1) < 0.25 * numbers[:, 2:3] + 1 / shape.frames
    whole = {
        "nothing": torch.zeros_like(scattered),
        "first frame": (t < 1).expand_as(scattered),
        "first frames": t < few,
        "last frames": t >= shape.frames - few,
        "first and last": ((t == 0) | (t == last)).expand_as(scattered),
        "some frames": scattered,
    }
    names, rows = list(TASKS), torch.arange(len(numbers), device=numbers.device)
    frames = torch.stack([whole.get(name, scattered) for name in names])[task, rows]
    moves = (t / last) * (task == names.index("around a track"))[:, None]
    inside = []
    for side, size, start, end in ((shape.height, 2, 4, 6), (shape.width, 3, 5, 7)):
        extent = (0.25 + 0.4 * numbers[:, size, None]) * side
        corner = torch.lerp(numbers[:, start, None], numbers[:, end, None], moves) * (side - extent)
        place = torch.arange(side, device=numbers.device) + 0.5
        inside.append((place >= corner[..., None]) & (place < (corner + extent)[..., None]))
    around = ~(inside[0][..., :, None] & inside[1][..., None, :])
    boxed = (task == names.index("around a box")) | (task == names.index("around a track"))
    return torch.where(boxed[:, None, None, None], around, frames[:, :, None, None]).float().unsqueeze(1)
