"""The figure that explains a diffusion model: a clip turning into noise, and below it clips coming out of noise."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Clip = UInt8[np.ndarray, "_ _ _ 3"]

CELL = 128  # pixels: smaller frames are enlarged to about this
GAP, LINE = 4, 22


def process_figure(
    forward: Sequence[Clip], backward: Mapping[str, Sequence[Clip]], steps: int, *, real: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the middle frame of every moment, clip and noise at the same sides: forward above, read to the right; reverse below.

    Args:
        forward: a clip at evenly spread moments, from the clip to noise.
        backward: what is sampled -> the same number of moments of it, from noise to the clip; drawn from right to left.
        steps: that sampling took.
        real: the clip above is real, and not one that the system made.
    """
    moments = len(forward)
    height, width = forward[0].shape[1:3]
    factor = max(1, round(CELL / max(height, width)))
    tall, wide = height * factor, max(width * factor, 72)
    block = LINE + tall + LINE + GAP
    canvas = Image.new("RGB", (moments * (wide + GAP) + GAP, (1 + len(backward)) * block + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    shares = np.linspace(0, 1, moments)
    forth = f"forward: {'a real clip' if real else 'a sample'} becomes noise, from left to right"
    rows = [(forth, forward, [f"t = {share:.2f}" for share in shares])]
    for said, clips in backward.items():
        back = f"reverse: noise becomes a clip, from right to left; {said}"
        rows.append((back, list(reversed(clips)), [f"step {round(steps * (1 - share))}" for share in shares]))
    for number, (title, clips, words) in enumerate(rows):
        top = GAP + number * block
        draw.text((GAP, top), title, "black", font)
        for column, (clip, word) in enumerate(zip(clips, words, strict=True)):
            left = GAP + column * (wide + GAP)
            frame = clip[len(clip) // 2].repeat(factor, axis=0).repeat(factor, axis=1)
            canvas.paste(Image.fromarray(frame), (left + (wide - frame.shape[1]) // 2, top + LINE))
            draw.text((left + wide / 2, top + LINE + tall + 2), word, "black", font, anchor="ma")
    return np.array(canvas)
