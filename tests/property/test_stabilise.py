import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data.stabilise import compose, invert, stabilise

similarities = st.builds(
    lambda angle, scale, x, y: np.hstack([cv2.getRotationMatrix2D((64, 48), angle, scale)[:, :2], [[x], [y]]]),
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.floats(-50, 50),
    st.floats(-50, 50),
)


@given(similarities)
def test_warp_after_inverse_warp_is_nothing(transform):
    np.testing.assert_allclose(compose(transform, invert(transform)), np.eye(2, 3), atol=1e-9)
    np.testing.assert_allclose(compose(invert(transform), transform), np.eye(2, 3), atol=1e-9)


@given(similarities, similarities, similarities)
def test_composition_is_associative(a, b, c):
    np.testing.assert_allclose(compose(compose(a, b), c), compose(a, compose(b, c)), atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.floats(0.95, 1.05), st.floats(-6, 6), st.floats(-6, 6))
def test_the_stabiliser_undoes_any_small_motion_of_the_camera(angle, scale, x, y):
    coarse = np.random.default_rng(5).integers(0, 255, (24, 32, 3), np.uint8)
    scene = cv2.GaussianBlur(cv2.resize(coarse, (192, 144)), (0, 0), 1)
    motion = cv2.getRotationMatrix2D((96, 72), angle, scale)
    motion[:, 2] += (x, y)
    moved = cv2.warpAffine(scene, motion, (192, 144), borderMode=cv2.BORDER_REFLECT)
    (segment,) = stabilise([scene, moved])
    undone = compose(segment.transforms[1], motion)
    corners = np.array([(20, 20, 1), (172, 20, 1), (20, 124, 1), (172, 124, 1)])
    assert np.abs(corners @ undone.T - corners[:, :2]).max() < 1
