"""VGAN learns what it claims on a scene whose background is known."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from kinema.core.types import Batch, Video
from kinema.systems.vgan import VGAN, VGANConfig
from kinema.training.trainer import TrainConfig, Trainer, run_fit

RAMP = torch.linspace(-0.6, 0.6, 16)
BACKGROUND = torch.stack([RAMP.expand(16, 16), RAMP[:, None].expand(16, 16), -RAMP.expand(16, 16)])
YELLOW = torch.tensor([1.0, 1.0, -1.0])[:, None, None]


def clips_of_a_moving_square(rows: int, generator: torch.Generator) -> Video:
    """A 4-pixel square crosses the same colour ramp, one pixel a frame, from a random place."""
    video = BACKGROUND[None, :, None].repeat(rows, 1, 8, 1, 1)
    for clip in video:
        top = int(torch.randint(0, 13, (1,), generator=generator))
        left = int(torch.randint(0, 6, (1,), generator=generator))
        for t in range(8):
            clip[:, t, top : top + 4, left + t : left + t + 4] = YELLOW
    return video


def background_error(background: Video) -> Float[Tensor, ""]:
    return (background[:, :, 0] - BACKGROUND).abs().mean()


def test_background_stream_finds_the_background_and_the_mask_finds_the_square():
    """Error .32 at the start; after 250 steps .14 when written, and mask .4 higher on the square than off it.

    Seen to fail: with `compose` returning the foreground alone (mask held at 1), the background stays at .32.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    config = VGANConfig(
        frames=8,
        size=16,
        code=16,
        width=16,
        discriminator_width=16,
        discriminator_norm="spectral",
        adversary="hinge",
        learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
    )
    system = VGAN(config)
    trainer = Trainer(system, "adversarial", TrainConfig(batch_size=16, ema_samples=500, precision="fp32"))
    with torch.no_grad():
        before = background_error(system.eval().streams(range(32))["background"])
    for _ in range(250):
        trainer.step(Batch(clips_of_a_moving_square(16, generator)))
    sampler = trainer.refresh_sampler([Batch(clips_of_a_moving_square(16, generator))] * 4)
    with torch.no_grad():
        streams = sampler.streams(range(32))
    square = (streams["result"] - BACKGROUND[None, :, None]).abs().mean(dim=1) > 0.5
    mask = (streams["mask"][:, 0] + 1) / 2
    assert background_error(streams["background"]) < 0.2 < 0.3 < before
    assert mask[square].mean() > mask[~square].mean() + 0.2


# --- Something that hardly moves ----------------------------------------------------------------------------------------------

WALLS = torch.stack([0.5 * BACKGROUND + 0.3, 0.5 * BACKGROUND + 0.1])
SKIN = torch.tensor([0.1, -0.5, -0.6])[None, :, None, None, None]


def clips_of_a_slow_disc(rows: int, generator: torch.Generator) -> Video:
    """A quarter of the picture, like a hand before a wall: it drifts two or three pixels in the whole clip."""
    x, y, angle, radius, way = (
        low + (high - low) * torch.rand(rows, 1, 1, 1, generator=generator)
        for low, high in ((4, 12), (4, 12), (0, 6.283), (3.5, 5.5), (1.5, 3.5))
    )
    time = way * torch.linspace(-0.5, 0.5, 8)[None, :, None, None]
    across, down = torch.arange(16.0), torch.arange(16.0)[:, None]
    distance = ((across - x - time * angle.cos()) ** 2 + (down - y - time * angle.sin()) ** 2).sqrt()
    disc = (radius - distance + 0.5).clamp(0, 1)[:, None]
    wall = WALLS[torch.randint(0, 2, (rows,), generator=generator)][:, :, None]
    colour = SKIN + 0.2 * (torch.rand(rows, 1, 1, 1, 1, generator=generator) - 0.5)
    return disc * colour + (1 - disc) * wall


@pytest.mark.slow
def test_something_slow_stays_out_of_a_still_stream_that_starts_from_the_footage():
    """Distance to the nearer wall .12 after 300 steps when written, and mask .16 higher on the disc than off it.

    Seen to fail (three seeds each): started grey, .17 to .21 and a mask that is the same everywhere; with the paper's equal
    rates, .21 to .26 and the disc in the still stream.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    config = VGANConfig(
        frames=8,
        size=16,
        code=16,
        width=16,
        discriminator_width=16,
        discriminator_norm="spectral",
        r1_weight=0.1,
        learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        background_start="still",
        background_rate=0.1,
    )
    system, settings = VGAN(config), TrainConfig(batch_size=16, ema_samples=1000, precision="fp32")
    run_fit(system, "background", (Batch(clips_of_a_slow_disc(64, generator)) for _ in range(8)), settings)
    trainer = Trainer(system, "adversarial", settings)
    for _ in range(300):
        trainer.step(Batch(clips_of_a_slow_disc(16, generator)))
    sampler = trainer.refresh_sampler([Batch(clips_of_a_slow_disc(16, generator))] * 4)
    with torch.no_grad():
        streams = sampler.streams(range(64))
    result, mask = streams["result"], (streams["mask"][:, 0] + 1) / 2
    walls = (streams["background"][:, None, :, 0] - WALLS).abs().mean(dim=(2, 3, 4))
    nearer = WALLS[(result[:, None] - WALLS[:, :, None]).abs().mean(dim=(2, 3, 4, 5)).argmin(dim=1)]
    disc = (result - nearer[:, :, None]).abs().mean(dim=1) > 0.25
    assert walls.amin(dim=1).mean() < 0.15
    assert mask[disc].mean() > mask[~disc].mean() + 0.08
