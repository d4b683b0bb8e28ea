import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data.motions import ACTIONS, sample_motion
from kinema.data.performers import render, sample_identity, sample_stage
from kinema.pose.kinematics import Body, perform
from kinema.pose.skeleton import COCO_18

SEEDS = st.integers(0, 2**31)


@settings(max_examples=15, deadline=None)
@given(action=st.sampled_from(list(ACTIONS)), seed=SEEDS, frames=st.integers(1, 5), size=st.integers(16, 96))
def test_any_film_is_the_background_plus_somebody(action: str, seed: int, frames: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    identity, stage = sample_identity("x", rng), sample_stage(rng)
    film = render(sample_motion(action, frames, 12.0, rng), identity, stage, size=size)
    outside = film.mask == 0
    stage_repeated = np.broadcast_to(film.background, film.video.shape)
    assert film.video.shape == (frames, size, size, 3)
    assert (film.video[outside] == stage_repeated[outside]).all()
    assert film.mask.max() > 127  # in the smallest pictures no limb fills a pixel


@settings(max_examples=30, deadline=None)
@given(action=st.sampled_from(list(ACTIONS)), seed=SEEDS, freedom=st.floats(0.0, 1.0), fps=st.floats(4.0, 60.0))
def test_any_motion_moves_any_body_without_stretching_it(action: str, seed: int, freedom: float, fps: float) -> None:
    rng = np.random.default_rng(seed)
    motion = sample_motion(action, 40, fps, rng, freedom)
    body: Body = sample_identity("x", rng).body
    performance = perform(motion.angles, motion.lift, body)
    assert np.isfinite(performance.joints).all()
    wanted = {(2, 3): body.upper_arm, (6, 7): body.forearm, (8, 9): body.thigh, (12, 13): body.shin, (2, 5): 2 * body.shoulders}
    for (a, b), length in wanted.items():
        bones = np.linalg.norm(performance.joints[:, a] - performance.joints[:, b], axis=1)
        np.testing.assert_allclose(bones, length * body.height, rtol=1e-9)
    ankles = performance.joints[:, (COCO_18.index("RAnkle"), COCO_18.index("LAnkle")), 1]
    assert ankles.min() >= body.ankle - 2e-6
    assert (motion.lift >= 0).all()
