"""Invariants of VGAN for any numbers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.systems.vgan import VGAN, VGANConfig, compose


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 3), frames=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_every_pixel_lies_between_foreground_and_background(seed, rows, frames):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, 1, frames, 4, 4, generator=generator)
    foreground = torch.rand(rows, 3, frames, 4, 4, generator=generator) * 2 - 1
    background = torch.rand(rows, 3, 4, 4, generator=generator) * 2 - 1
    video, still = compose(mask, foreground, background), background[:, :, None]
    assert (video >= torch.minimum(foreground, still) - 1e-6).all()
    assert (video <= torch.maximum(foreground, still) + 1e-6).all()


@given(
    doublings=st.integers(1, 3),
    times=st.integers(1, 2),
    streams=st.sampled_from(["one", "two"]),
    upsampling=st.sampled_from(["transposed", "smoothed", "resize"]),
)
@settings(max_examples=15, deadline=None)
def test_any_size_makes_clips_of_that_size_in_range(doublings, times, streams, upsampling):
    size, frames = 4 << doublings, times << doublings
    config = VGANConfig(
        frames=frames,
        size=size,
        code=3,
        width=2,
        discriminator_width=2,
        generator_streams=streams,
        upsampling=upsampling,
    )
    system = VGAN(config).eval()
    with torch.no_grad():
        video = system.generate([1])
        assert video.shape == (1, 3, frames, size, size)
        assert video.abs().max() <= 1
        assert system.score(video).shape == (1,)
