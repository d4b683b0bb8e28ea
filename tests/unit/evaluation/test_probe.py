"""A probe from a run to its report, on tiny systems."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kinema.core.errors import EvaluationError
from kinema.evaluation.labelled import open_labelled
from kinema.evaluation.probe import FRACTIONS, WAYS, Cell, Outcome, Probe, open_pretrained, regress, take_over
from kinema.evaluation.probe_report import Counts, accuracies, count_right, gains, summarise, words, write_reports
from kinema.evaluation.probe_settings import ProbeSettings
from kinema.systems import SYSTEMS
from kinema.systems.vgan_recogniser import VGANRecogniser
from kinema.training.checkpoint import save_checkpoint
from labelled_dataset import write_labelled

SETTINGS = ProbeSettings(seeds=1, steps=3, batch_size=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained runs of every system, and labelled clips."""
    folder = tmp_path_factory.mktemp("place")
    for name, system_class in SYSTEMS.items():
        torch.manual_seed(7)
        (folder / name).mkdir()
        system = system_class(system_class.presets["tiny"].config)
        save_checkpoint(folder / name / "checkpoint.safetensors", system, stage="test", steps=5)
    write_labelled(folder / "data")
    return folder


def probe_of(place: Path, out: Path, settings: ProbeSettings = SETTINGS, run: str = "vgan", **options: bool) -> Probe:
    return Probe(open_pretrained(str(place / run)), open_labelled(place / "data"), settings, out, **options)


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Probe, dict[Cell, Outcome]]:
    probe = probe_of(place, tmp_path_factory.mktemp("done"))
    return probe, dict(probe.run())


@pytest.mark.parametrize(
    ("run", "part", "norm"),
    [
        ("vgan", "discriminator", "spectral"),
        ("vgan-future", "discriminator", "spectral"),
        ("vgan-autoencoder", "encoder", "batch"),
    ],
)
def test_the_convolutions_of_a_run_are_taken_over_by_name(place: Path, run: str, part: str, norm: str) -> None:
    pretrained = open_pretrained(str(place / run))
    assert (pretrained.about["part"], pretrained.config.discriminator_norm) == (part, norm)
    assert len(pretrained.about["checkpoint sha256"]) == 64
    recogniser = VGANRecogniser(replace(pretrained.config, classes=2))
    take_over(recogniser, pretrained)
    stored = SYSTEMS[run](SYSTEMS[run].presets["tiny"].config)
    torch.manual_seed(7)
    stored = SYSTEMS[run](SYSTEMS[run].presets["tiny"].config).eval()
    video = torch.rand(2, 3, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(recogniser.eval().features(video), getattr(stored, part).features(video))


def test_a_run_without_discriminator_is_refused(place: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"is a run of vgan-recogniser, which has no discriminator or encoder of clips; probe"
    ):
        open_pretrained(str(place / "vgan-recogniser"))


def test_weights_that_do_not_fit_are_named(place: Path) -> None:
    pretrained = open_pretrained(str(place / "vgan-autoencoder"))
    wide = VGANRecogniser(replace(pretrained.config, discriminator_width=8))
    with pytest.raises(EvaluationError, match=r"has for features\.0\.0\.bias shape \(4,\), and the recogniser shape \(8,\)"):
        take_over(wide, pretrained)
    spectral = VGANRecogniser(replace(pretrained.config, discriminator_norm="spectral"))
    with pytest.raises(EvaluationError, match=r"features\..* and the recogniser"):
        take_over(spectral, pretrained)


def test_clips_of_another_shape_are_refused(place: Path, tmp_path: Path) -> None:
    from small_dataset import write_dataset

    write_dataset(tmp_path / "wide", 20, shape=(8, 16, 20))
    with pytest.raises(
        EvaluationError, match=r"has clips of 8x16x20 and .* was trained on 8x16x16 .*; prepare it with --frames 8"
    ):
        Probe(open_pretrained(str(place / "vgan")), open_labelled(tmp_path / "wide"), SETTINGS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_cell_is_answered(done: tuple[Probe, dict[Cell, Outcome]]) -> None:
    probe, outcomes = done
    assert [(cell.fraction, cell.way) for cell in outcomes] == [(fraction, way) for fraction in FRACTIONS for way in WAYS]
    for cell, outcome in outcomes.items():
        assert outcome.log_probabilities.shape == (len(probe.divisions[0].test), 2)
        np.testing.assert_allclose(np.exp(outcome.log_probabilities).sum(axis=1), 1, rtol=1e-4)
        assert outcome.labelled == len(probe.labelled(0, cell.fraction))
        assert 0 <= outcome.training_accuracy <= 1


def test_what_is_stored_is_not_computed_again(
    done: tuple[Probe, dict[Cell, Outcome]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, outcomes = done
    again = probe_of(place, probe.folder)
    monkeypatch.setattr(Probe, "_compute", None)
    for (cell, outcome), (other, expected) in zip(again.run(), outcomes.items(), strict=True):
        assert cell == other
        np.testing.assert_array_equal(outcome.log_probabilities, expected.log_probabilities)


def test_a_probe_that_was_stopped_gives_the_same(
    done: tuple[Probe, dict[Cell, Outcome]], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of a cell; then one of the stored files is damaged."""
    _, expected = done
    stopped = probe_of(place, tmp_path)

    def stop(cell: Cell, step: int, steps: int) -> None:
        if cell.fraction == 0.5 and step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stopped.run(stop))
    files = sorted((tmp_path / "cells").iterdir())
    assert len(files) == 4  # all cells of the first fraction, and nothing half written
    files[0].write_bytes(files[0].read_bytes()[:100])
    computed: list[Cell] = []
    found = dict(probe_of(place, tmp_path).run(lambda cell, step, steps: computed.append(cell)))
    assert len(set(computed)) == len(expected) - 3
    for cell, outcome in expected.items():
        np.testing.assert_array_equal(found[cell].log_probabilities, outcome.log_probabilities)


def test_another_question_needs_another_folder(done: tuple[Probe, dict[Cell, Outcome]], place: Path, tmp_path: Path) -> None:
    probe, _ = done
    with pytest.raises(
        EvaluationError, match=r"holds a probe with another steps \(3, not 4\); give another --out, or --overwrite"
    ):
        probe_of(place, probe.folder, replace(SETTINGS, steps=4))
    with pytest.raises(EvaluationError, match=r"holds a probe with another checkpoint sha256"):
        probe_of(place, probe.folder, run="vgan-future")
    assert len(probe_of(place, probe.folder, replace(SETTINGS, seeds=2)).cells()) == 40  # more seeds are the same question
    first = probe_of(place, tmp_path)
    next(first.run())
    probe_of(place, tmp_path, replace(SETTINGS, steps=4), overwrite=True)
    assert not list((tmp_path / "cells").iterdir())


def test_both_ways_that_learn_differ_in_the_convolutions_alone(place: Path, tmp_path: Path) -> None:
    probe = probe_of(place, tmp_path)
    random, tuned = (probe._recogniser(0, pretrained=pretrained) for pretrained in (False, True))
    for (name, one), (_, other) in zip(random.state_dict().items(), tuned.state_dict().items(), strict=True):
        moved = name.startswith("features") and not name.endswith("bias")  # biases begin at zero in both
        assert torch.equal(one, other) != moved, name


def test_regression_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 4)).astype(np.float32) * (1, 5, 0.1, 1) + (0, 3, 0, 0)
    features = features.astype(np.float32)
    labels = (features[:, 0] + features[:, 1] > 3).astype(int)
    training, test = range(40), range(40, 60)
    found, right = regress(features, labels, training, test, 0.5)
    mean, spread = features[:40].mean(axis=0), features[:40].std(axis=0)
    model = LogisticRegression(C=0.5, max_iter=1000).fit((features[:40] - mean) / spread, labels[:40])
    np.testing.assert_allclose(np.exp(found), model.predict_proba((features[40:] - mean) / spread), atol=1e-4)
    assert right == model.score((features[:40] - mean) / spread, labels[:40])


# --- The report ---------------------------------------------------------------------------------------------------------------


def test_clips_and_videos_are_counted(place: Path, tmp_path: Path) -> None:
    """A video may be right although most of its clips are wrong."""
    probe = probe_of(place, tmp_path)
    labels = probe.clips.labels[list(probe.divisions[0].test)]
    found = np.log(np.full((8, 2), 0.5, np.float32))
    for video in range(2):  # three clips a little wrong, one surely right
        rows = slice(4 * video, 4 * video + 4)
        label = labels[4 * video]
        found[rows] = np.log([0.6, 0.4]) if label else np.log([0.4, 0.6])
        found[4 * video] = np.log([0.01, 0.99]) if label else np.log([0.99, 0.01])
    outcome = count_right(probe, 0, Outcome(found, 4, 1.0, 0.0))
    assert outcome.right.tolist() == [1, 1]
    assert outcome.clips.tolist() == [4, 4]
    assert outcome.video.tolist() == [1, 1]


def test_accuracies_and_gains_by_hand() -> None:
    one = Counts(np.array([4.0, 2.0]), np.array([4.0, 4.0]), np.array([1.0, 0.0]))
    other = Counts(np.array([1.0, 1.0]), np.array([4.0, 4.0]), np.array([0.0, 0.0]))
    found = accuracies([one, other])
    assert found["clip"]["seeds"] == [0.75, 0.25]
    assert (found["clip"]["accuracy"], found["video"]["accuracy"]) == (0.5, 0.25)
    assert found["clip"]["low"] <= 0.25 < 0.5 <= found["clip"]["high"] <= 1
    gain = gains([one], [other])
    assert gain["clip"]["difference"] == 0.5
    assert gain["clip"]["ratio"] == 3
    assert gain["clip"]["low"] == 0.25  # at worst only the second video is drawn: 2/4 against 1/4
    assert gain["video"]["ratio"] is None  # random initialisation recognises no video
    same = gains([one, other], [one, other])
    assert (same["clip"]["low"], same["clip"]["high"]) == (0, 0)  # drawn together


def test_the_interval_covers_what_it_should() -> None:
    """One seed, 200 videos of which each is right with probability 0.7: close to the binomial interval."""
    video = (np.random.default_rng(0).random(200) < 0.7).astype(float)
    found = accuracies([Counts(video, np.ones(200), video)])["video"]
    spread = 1.96 * (video.mean() * (1 - video.mean()) / 200) ** 0.5
    assert found["high"] - found["accuracy"] == pytest.approx(spread, rel=0.15)
    assert found["accuracy"] - found["low"] == pytest.approx(spread, rel=0.15)


def test_the_report_says_what_was_found(done: tuple[Probe, dict[Cell, Outcome]], tmp_path: Path) -> None:
    probe, outcomes = done
    report = summarise(probe, outcomes, {"command": ["kinema", "probe"]})
    write_reports(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2
    assert 'href="data:,"' in page
    assert page.count("http") == 0
    assert "{{" not in page
    assert report["data"]["chance"] == 0.5
    assert report["data"]["most frequent class"] == 0.5
    assert [row["labelled clips"] for row in report["rows"]] == [[16], [8], [4], [2], [2]]
    assert any("more --steps would change these numbers" in finding for finding in report["findings"])
    assert [words(row["fraction"]) for row in report["rows"]] == ["all", "1/2", "1/4", "1/8", "1/16"]


def test_only_whole_seeds_are_reported(done: tuple[Probe, dict[Cell, Outcome]], place: Path) -> None:
    probe, outcomes = done
    two = probe_of(place, probe.folder, replace(SETTINGS, seeds=2))
    begun = outcomes | {Cell(1, 1.0, "random"): next(iter(outcomes.values()))}
    assert summarise(two, begun, {})["settings"]["seeds"] == 1
