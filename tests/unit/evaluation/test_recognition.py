"""Scores by a classifier, against values by hand."""

from math import exp, log

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.evaluation.clips import Source
from kinema.evaluation.recognition import (
    MOTION_CONTROL,
    Classifier,
    Scoring,
    motion_control,
    probabilities,
    scores,
    warnings,
)

LABELS = ("left", "right")


def answers(clips) -> np.ndarray:
    """Read the probability of the second class off the first pixel."""
    second = np.array([clip[0, 0, 0, 0] / 255 for clip in clips])
    return np.stack([1 - second, second], axis=1)


def clip(second: float) -> np.ndarray:
    return np.full((2, 4, 4, 3), round(255 * second), np.uint8)


def classifier(accuracy: float = 0.9) -> Classifier:
    about = {"held-out accuracy": accuracy, "held-out clips": 50, "trained on these clips": True}
    return Classifier("reader", LABELS, answers, about)


def source(**fields: object) -> Source:
    """Clips that are surely left for even seeds and surely right for odd ones."""
    return Source("fake", ClipShape(2, 4, 4), 25.0, "pixels", None, lambda seeds: [clip(s % 2) for s in seeds], **fields)


def judged(of: Source) -> dict:
    scoring = Scoring(classifier(), replicates=50, seed=0, said=lambda what, done, total: None)
    return scoring.judge(of, range(40), lambda indices: [clip(0.5) for _ in indices], range(40))


def test_a_classifier_that_does_not_know_gives_one() -> None:
    found = scores(np.full((10, 4), 0.25))
    assert found == pytest.approx({"inception score": 1.0, "inter-entropy": log(4), "intra-entropy": log(4)})


def test_sure_of_every_class_equally_often_gives_the_number_of_classes() -> None:
    found = scores(np.eye(5)[np.arange(20) % 5])
    assert found == pytest.approx({"inception score": 5.0, "inter-entropy": log(5), "intra-entropy": 0.0})


def test_sure_of_one_class_alone_gives_one() -> None:
    assert scores(np.eye(3)[np.zeros(7, int)]) == pytest.approx({"inception score": 1, "inter-entropy": 0, "intra-entropy": 0})


def test_two_clips_by_hand() -> None:
    """p = (3/4, 1/4) and (1/4, 3/4); p(y) = (1/2, 1/2)."""
    intra = -(0.75 * log(0.75) + 0.25 * log(0.25))
    divergence = 0.75 * log(1.5) + 0.25 * log(0.5)
    found = scores(np.array([[0.75, 0.25], [0.25, 0.75]]))
    assert found == pytest.approx({"inception score": exp(divergence), "inter-entropy": log(2), "intra-entropy": intra})


def test_the_logarithm_of_the_score_is_the_difference_of_the_entropies() -> None:
    found = scores(np.random.default_rng(0).dirichlet([0.3] * 6, size=50))
    assert log(found["inception score"]) == pytest.approx(found["inter-entropy"] - found["intra-entropy"])
    assert 1 <= found["inception score"] <= 6


def test_motion_control_counts_what_was_asked_for() -> None:
    assert motion_control(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 0])) == 0.75


def test_portions_keep_the_order() -> None:
    shown: list[int] = []
    found = probabilities(classifier(), lambda indices: [clip(i / 255) for i in indices], range(37), shown.append)
    assert found[:, 1] * 255 == pytest.approx(np.arange(37))
    assert shown == [16, 32, 37]


def test_judged_and_real_clips_are_scored_alike() -> None:
    answer = judged(source())
    score = answer["scores"]["inception score"]
    assert score["value"] == pytest.approx(2.0)
    assert score["real"] == pytest.approx(1.0)  # the real clips here say nothing about their class
    assert score["low"] <= score["value"]
    assert score["formula"] == "exp(mean KL(p(y|x) || p(y)))"
    assert answer["recognised as"] == {"left": 20, "right": 20}
    assert MOTION_CONTROL not in answer["scores"]  # it takes no labels


def test_a_system_that_takes_labels_gets_a_motion_control_score() -> None:
    obedient = source(by_label=lambda seeds, labels: [clip(label) for label in labels], labels=LABELS)
    score = judged(obedient)["scores"][MOTION_CONTROL]
    assert (score["value"], score["low"], score["high"], score["real"]) == (1.0, 1.0, 1.0, 0.9)
    deaf = source(by_label=lambda seeds, labels: [clip(0) for _ in labels], labels=LABELS)
    assert judged(deaf)["scores"][MOTION_CONTROL]["value"] == 0.5


def test_other_labels_are_refused() -> None:
    other = source(by_label=lambda seeds, labels: [clip(0) for _ in labels], labels=("up", "down"))
    with pytest.raises(
        EvaluationError, match=r"fake makes 2 classes \(up, down\) and the classifier reader knows 2 classes \(left"
    ):
        judged(other)


def test_a_poor_classifier_is_called_one() -> None:
    answer = judged(source())
    assert warnings(answer, "test") == []
    assert [said[:43] for said in warnings(answer, "train")] == ["The classifier was trained on some of the r"]
    answer["classifier"] |= {"held-out accuracy": 0.6, "trained on these clips": False}
    assert "recognises 60% of held-out clips, and 50% is chance" in warnings(answer, "test")[0]
    assert "trained on other clips" in warnings(answer, "test")[1]
