"""Which detector found poses, as prepared data, poses and checkpoints say it."""

from dataclasses import asdict

import numpy as np
import pytest

from kinema.pose.found_by import RECORDED, FoundBy, of_poses, of_prepared, of_run
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18

MEDIAPIPE, FILE = FoundBy("mediapipe", "0.10.14+2"), FoundBy("dots.onnx", "ab" * 32)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"kind": "footage", "pose": "mediapipe", "pose_version": "0.10.14+2"}, MEDIAPIPE),
        ({"pose": "models/dots.onnx", "pose_version": "ab" * 32}, FILE),
        ({"pose": "poses/", "pose_version": "ab" * 32}, None),
        ({"pose": "dancer.npz", "pose_version": "ab" * 32}, None),
        ({"pose": None}, None),
        ({"kind": "performers", "pose_noise": 0.0}, None),
    ],
)
def test_a_prepared_dataset_says_it_where_a_detector_looked(settings: dict[str, object], found: FoundBy | None) -> None:
    assert of_prepared(settings) == found


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({"settings": {"detector": "models/dots.onnx", "detector_version": "ab" * 32}}, FILE),
        ({"settings": {"detector": "mediapipe", "detector_version": None}}, FoundBy("mediapipe")),
        ({"settings": "other"}, None),
        ({"version": 1.3}, None),
        (None, None),
    ],
)
def test_poses_say_it_where_kinema_found_them(extra: dict[str, object] | None, found: FoundBy | None) -> None:
    assert of_poses(Poses(np.zeros((2, 1, 18, 3), np.float32), COCO_18, 8, 8, 25.0, extra=extra)) == found


@pytest.mark.parametrize(("dataset", "found"), [({RECORDED: asdict(FILE)}, FILE), ({}, None), ({RECORDED: None}, None)])
def test_a_checkpoint_says_it_or_is_older(dataset: dict[str, object], found: FoundBy | None) -> None:
    assert of_run(dataset) == found


def test_versions_decide_and_names_where_one_is_unknown() -> None:
    assert not FILE.differs(FoundBy("copy.onnx", FILE.version))
    assert MEDIAPIPE.differs(FoundBy("mediapipe", "0.10.9+2"))
    assert not MEDIAPIPE.differs(FoundBy("mediapipe"))
    assert FILE.differs(FoundBy("mediapipe"))
    assert str(FILE) == "dots.onnx abababababababab"
    assert str(FoundBy("mediapipe")) == "mediapipe"
