import hashlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.data.dataset import Clip
from kinema.data.performers import PerformersSettings, render_clip
from kinema.pose.blazepose import MESH, own_hands, require_model
from kinema.pose.detect import PoseDetector, collect, has_trunk, open_detector, painted_over, paired, visible
from kinema.pose.skeleton import COCO_17, COCO_18, FACE_70, anonymous, find_skeleton
from kinema.pose.topdown import decode_axes, decode_heatmaps
from small_onnx import picture, write_network


class Corner:
    """Says that everybody is where the picture is brightest; looks two frames ahead, as a detector that works in batches."""

    name, version, skeleton = "corner", "1", anonymous(1)

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        batch: list[np.ndarray] = []
        for frame in frames:
            batch.append(frame)
            if len(batch) == 2:
                yield from map(self.answer, batch)
                batch.clear()
        yield from map(self.answer, batch)

    def answer(self, frame: np.ndarray) -> np.ndarray:
        row, column = np.unravel_index(frame[..., 0].argmax(), frame.shape[:2])
        return np.array([[[column, row, 1]]], np.float32) if frame.any() else np.empty((0, 1, 3), np.float32)


def spots(frames: int = 5) -> np.ndarray:
    video = np.zeros((frames, 8, 8, 3), np.uint8)
    for t in range(frames):
        video[t, t, t + 1] = 9
    return video


def test_every_frame_comes_back_with_its_own_people() -> None:
    assert isinstance(Corner(), PoseDetector)
    for frame, people in paired(Corner(), spots(), np.asarray):
        assert people[0, 0, :2].tolist() == [np.argwhere(frame[..., 0])[0, 1], np.argwhere(frame[..., 0])[0, 0]]
    assert len(list(paired(Corner(), spots(), np.asarray))) == 5


def test_pairing_holds_no_more_frames_than_the_detector() -> None:
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for frame in spots():
            read += 1
            yield frame

    for number, _ in enumerate(paired(Corner(), frames(), np.asarray)):
        assert read <= number + 2


def test_frames_without_people_are_missing_in_the_sequence() -> None:
    video = spots()
    video[2] = 0
    points = collect(list(Corner().detect(video)), anonymous(1), anonymous(1))
    assert points[:, 0, 0, 2].tolist() == [1, 1, 0, 1, 1]
    assert points[3, 0, 0].tolist() == [4, 3, 1]
    nobody = collect([np.empty((0, 17, 3), np.float32)], COCO_17, COCO_18)
    assert nobody.shape == (1, 1, 18, 3)
    assert (nobody[..., 2] == 0).all()


def test_frames_with_fewer_people_than_others_are_filled_with_missing_ones() -> None:
    two, one = np.ones((2, 17, 3), np.float32), np.ones((1, 17, 3), np.float32)
    points = collect([one, two], COCO_17, COCO_18)
    assert (points[..., 2] > 0).all(axis=2).tolist() == [[True, False], [True, True]]


def test_what_is_outside_or_unsure_is_missing() -> None:
    points = np.array([[-0.5, 0, 0.9], [-0.51, 0, 0.9], [9.49, 4, 0.3], [9.5, 4, 0.9], [3, 3, 0.29], [3, 4.5, 1]])
    assert (visible(points, 10, 5, 0.3)[:, 2] > 0).tolist() == [True, False, True, False, False, False]
    assert np.isnan(visible(points, 10, 5, 0.3)[1, :2]).all()


def test_two_of_shoulders_and_hips_make_a_person() -> None:
    pose = np.zeros((4, 18, 3), np.float32)
    for t, joints in enumerate((["RShoulder", "LShoulder"], ["LShoulder", "LHip"], ["RHip"], ["Nose", "RKnee", "LKnee"])):
        pose[t, [COCO_18.index(joint) for joint in joints], 2] = 0.5
    assert has_trunk(pose, COCO_18).tolist() == [True, True, False, False]
    assert has_trunk(np.full((1, 3, 3), 0.5), anonymous(3)).all()


def test_somebody_is_painted_over_with_what_reaches_beyond_the_joints() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3)).astype(np.uint8)
    person = np.array([[30, 40, 0.9], [40, 60, 0.5], [79, 99, 0]], np.float32)  # the last is missing
    painted = painted_over(image, person)
    changed = np.argwhere((painted != image).any(axis=-1))
    assert (changed.min(axis=0).tolist(), changed.max(axis=0).tolist()) == ([36, 26], [63, 43])
    assert (painted[36:64, 26:44] == image.mean(axis=(0, 1)).round()).all()
    assert painted_over(image, np.zeros((3, 3), np.float32)) is image


def test_a_top_down_network_finds_one_person_and_says_so() -> None:
    with pytest.raises(ConfigError, match=r"a top-down network sees one crop, so that it finds one person; give"):
        open_detector("rtmpose.onnx", people=2)


def test_a_detector_that_there_is_not_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"no pose detector 'mediapip'; did you mean 'mediapipe'\? accepted: FILE.onnx, mediapipe"
    ):
        open_detector("mediapip")


# --- MediaPipe ----------------------------------------------------------------------------------------------------------------

needs_mediapipe = pytest.mark.skipif(find_spec("mediapipe") is None, reason="needs the [pose] extra")


@pytest.fixture(scope="module")
def performer() -> Clip:
    """A film of somebody drawn, whom MediaPipe takes for a person, with the places of the joints."""
    return render_clip(1, PerformersSettings(frames=6, size=256))


@needs_mediapipe
def test_mediapipe_finds_a_performer_where_they_are(performer: Clip, capfd: pytest.CaptureFixture[str]) -> None:
    detector = open_detector("mediapipe")
    people = list(detector.detect(performer.video))
    assert capfd.readouterr().err == ""
    assert [found.shape for found in people] == [(1, 33, 3)] * 6
    found = collect(people, detector.skeleton, COCO_18)[:, 0]
    assert performer.pose is not None
    both = (found[..., 2] > 0) & (performer.pose[..., 2] > 0)
    assert both.mean() > 0.8
    distance = np.linalg.norm(found[..., :2] - performer.pose[..., :2], axis=-1)[both]
    assert np.median(distance) < 6  # pixels of 256; the person is about 160 high


@needs_mediapipe
def test_mediapipe_gives_the_same_again_and_forgets_the_film_before(performer: Clip) -> None:
    detector = open_detector("mediapipe")
    first = np.concatenate(list(detector.detect(performer.video[:3])))
    list(detector.detect(performer.video[::-1]))
    np.testing.assert_array_equal(np.concatenate(list(detector.detect(performer.video[:3]))), first)


@needs_mediapipe
def test_mediapipe_sees_nobody_where_nobody_is(performer: Clip) -> None:
    assert performer.background is not None
    assert [len(found) for found in open_detector("mediapipe", still=True).detect([performer.background])] == [0]


@needs_mediapipe
def test_mediapipe_looks_into_its_view_alone(performer: Clip) -> None:
    """Two people side by side: the view chooses, and the answer is in pixels of the whole frame."""
    pair = np.concatenate([performer.video, performer.video[:, :, ::-1]], axis=2)[:3]
    middles = []
    for left in (0, 256):
        people = list(open_detector("mediapipe", view=(left, 0, 256, 256)).detect(pair[:1]))
        assert all(len(found) == 1 for found in people)
        middles.append(float(np.nanmean(people[0][0, :, 0])))
    assert 0 < middles[0] < 256 < middles[1] < 512
    alone = next(iter(open_detector("mediapipe").detect(performer.video)))
    np.testing.assert_allclose(middles[0], np.nanmean(alone[0, :, 0]), atol=1e-3)


@needs_mediapipe
@pytest.mark.parametrize("still", [False, True])
def test_mediapipe_finds_as_many_people_as_it_is_asked_for(
    performer: Clip, still: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two people, who stand where each is found alone; a third is not made up, and one alone is the most prominent."""
    pair = np.concatenate([performer.video, performer.video[:, :, ::-1]], axis=2)[:3]
    for people in open_detector("mediapipe", people=3, still=still).detect(pair):
        assert people.shape == (2, 33, 3)
        left, right = sorted(float(np.nanmean(person[:, 0])) for person in people)
        assert 0 < left < 256 < right < 512
    assert capfd.readouterr().err == ""
    two, one = open_detector("mediapipe", people=2, still=still), open_detector("mediapipe", still=still)
    first = [next(iter(detector.detect(pair)))[0] for detector in (two, one)]
    np.testing.assert_array_equal(*first)
    again = np.stack(list(two.detect(pair)))
    np.testing.assert_array_equal(again, np.stack(list(two.detect(pair))))


class Mark:
    def __init__(self, x: float, y: float) -> None:
        self.x, self.y, self.visibility = x, y, 0.9


class Marks:
    def __init__(self, places: list[tuple[float, float]]) -> None:
        self.landmark = [Mark(x, y) for x, y in places]


class Found:
    """What MediaPipe Holistic would say: body at a quarter, mesh point k at (k / 1000, 1/2), a left hand that ends outside."""

    pose_landmarks = Marks([(0.25, 0.25)] * 33)
    face_landmarks = Marks([(number / 1000, 0.5) for number in range(478)])
    left_hand_landmarks = Marks([(0.5 + number / 40, 0.75) for number in range(21)])
    right_hand_landmarks = None


@needs_mediapipe
def test_faces_and_hands_come_in_openposes_order_and_what_is_not_found_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Holistic:
        def __init__(self, **options: object) -> None:
            assert options["refine_face_landmarks"]  # without, there are no pupils

        def process(self, image: np.ndarray) -> type[Found]:
            return Found

        def close(self) -> None:
            pass

    monkeypatch.setattr(import_module("mediapipe.python.solutions.holistic"), "Holistic", Holistic)
    detector = open_detector("mediapipe", parts=("face", "hands"))
    assert detector.skeleton.name == "blazepose-33+face+hands"
    (people,) = detector.detect([np.zeros((100, 1000, 3), np.uint8)])
    pieces = detector.skeleton.pieces
    face, hands = people[0, pieces["face"]], people[0, pieces["hands"]]
    np.testing.assert_allclose(people[0, 0], [249.5, 24.5, 0.9], rtol=1e-6)
    known = {"RJaw0": 127, "Chin": 152, "LJaw0": 356, "NoseBridge3": 4, "REyeCornerOuter": 33, "LEyeCornerOuter": 263}
    for joint, number in {**known, "RLipCorner": 61, "LLipCorner": 291, "RPupil": 468, "LPupil": 473}.items():
        np.testing.assert_allclose(face[FACE_70.index(joint)], [number - 0.5, 49.5, 1], rtol=1e-6)
    np.testing.assert_allclose(hands[:20, 0], 500 + 25 * np.arange(20) - 0.5, rtol=1e-6)
    assert hands[:20, 2].tolist() == [1] * 20
    assert not hands[20:, 2].any()  # a finger tip outside of the frame, and the right hand
    assert np.isnan(hands[20:, :2]).all()


class Standing:
    """What MediaPipe Pose would say of somebody: shoulders at one height, hips at another; how sure it is."""

    def __init__(self, shoulders: float, hips: float, sure: float) -> None:
        self.pose_landmarks = Marks([(0.5, hips if number > 22 else shoulders) for number in range(33)])
        for mark in self.pose_landmarks.landmark:
            mark.visibility = sure


DOWN, UP, DOUBTED = Standing(0.7, 0.4, 0.8), Standing(0.3, 0.6, 0.9), Standing(0.3, 0.6, 0.7)


@needs_mediapipe
@pytest.mark.parametrize(("second", "upright"), [(UP, True), (DOUBTED, False), (DOWN, False)])
def test_who_is_upside_down_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, second: Standing, upright: bool) -> None:
    """The network that follows takes arms for legs until it forgets; the one that does not sees what `second` says."""
    opened = []

    class Pose:
        def __init__(self, static_image_mode: bool, **options: object) -> None:
            self.still, self.begun_anew, self.looks = static_image_mode, 0, 0
            opened.append(self)

        def process(self, image: np.ndarray) -> Standing:
            self.looks += 1
            return second if self.still else UP if self.begun_anew else DOWN

        def reset(self) -> None:
            self.begun_anew += 1

        def close(self) -> None:
            pass

    monkeypatch.setattr(import_module("mediapipe.python.solutions.pose"), "Pose", Pose)
    detector = open_detector("mediapipe")
    frames = list(detector.detect([np.zeros((100, 100, 3), np.uint8)] * 3))
    shoulder, hip = (detector.skeleton.index(name) for name in ("RShoulder", "RHip"))
    assert [bool(people[0, hip, 1] > people[0, shoulder, 1]) for people in frames] == [upright] * 3
    following, still = opened
    assert (following.begun_anew, still.looks) == ((1, 1) if upright else (0, 3))  # it forgets once, and is right from then on
    assert [next(iter(detector.detect([np.zeros((9, 9, 3), np.uint8)]))).shape for _ in range(2)] == [(1, 33, 3)] * 2


def crossed(right_at: tuple[float, float], right_tip: tuple[float, float]) -> np.ndarray:
    """A person with wrists at (20, 50) and (80, 50), a left hand that points up from its wrist, and a right hand anywhere."""
    skeleton = find_skeleton("coco-18+hands")
    points = np.ones((len(skeleton), 3), np.float32)
    points[skeleton.index("RWrist"), :2], points[skeleton.index("LWrist"), :2] = (20, 50), (80, 50)
    points[18:39, :2] = np.linspace((78, 50), (78, 30), 21)
    points[39:, :2] = np.linspace(right_at, right_tip, 21)
    return points


@pytest.mark.parametrize(
    ("right_at", "right_tip", "kept"),
    [
        ((22, 50), (22, 30), True),  # where it belongs
        ((70, 50), (70, 30), False),  # beside the left hand, far from its own wrist
        ((22, 50), (88, 50), True),  # points at the left wrist, and hangs on its own
        ((45, 50), (45, 30), True),  # on no wrist: far from its own, not near to the other
        ((78.5, 50), (78.5, 30), False),  # the left hand once more
    ],
)
def test_a_hand_on_the_other_arm_is_dropped(right_at: tuple[float, float], right_tip: tuple[float, float], kept: bool) -> None:
    given = crossed(right_at, right_tip)
    skeleton = find_skeleton("coco-18+hands")
    found = own_hands(given, skeleton)
    np.testing.assert_array_equal(found[:39], given[:39])
    if kept:
        np.testing.assert_array_equal(found, given)
    else:
        assert not found[39:, 2].any()
        assert np.isnan(found[39:, :2]).all()


def test_of_two_hands_that_are_one_the_nearer_arm_has_it_and_without_a_wrist_nothing_is_known() -> None:
    skeleton = find_skeleton("coco-18+hands")
    folded = crossed((78.5, 50), (78.5, 30))
    folded[skeleton.index("RWrist"), :2] = (72, 50)  # so near that distance alone would keep both
    assert not own_hands(folded, skeleton)[39:, 2].any()
    folded[skeleton.index("LWrist")] = np.nan, np.nan, 0
    np.testing.assert_array_equal(own_hands(folded, skeleton), folded)
    folded[skeleton.index("LWrist")], folded[39:] = (80, 50, 1), (np.nan, np.nan, 0)
    np.testing.assert_array_equal(own_hands(folded, skeleton), folded)


@needs_mediapipe
def test_the_points_of_a_face_are_on_mediapipes_own_contours() -> None:
    """Jaw, brows, eyes and lips; its contours have no nose and no pupils."""
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_CONTOURS

    on_contour = {number for edge in FACEMESH_CONTOURS for number in edge}
    bridge = range(27, 36)
    assert all(MESH[point] in on_contour for point in range(68) if point not in bridge)
    assert len(set(MESH)) == 70


@needs_mediapipe
def test_the_body_is_the_same_with_face_and_hands(performer: Clip) -> None:
    alone = np.concatenate(list(open_detector("mediapipe").detect(performer.video[:3])))
    detector = open_detector("mediapipe", parts=("hands",))
    both = np.concatenate(list(detector.detect(performer.video[:3])))
    assert both.shape == (3, 33 + 42, 3)
    np.testing.assert_array_equal(both[:, detector.skeleton.pieces["body"]], alone)


def test_a_top_down_network_finds_no_hands_and_says_so() -> None:
    with pytest.raises(ConfigError, match=r"finds the body alone, and face and hands are asked for; give --detector mediapipe"):
        open_detector("rtmpose.onnx", parts=("face", "hands"))


@needs_mediapipe
def test_another_version_or_complexity_than_there_is_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mediapipe is of version .*, and 0\.1 is asked for"):
        open_detector("mediapipe", version="0.1")
    with pytest.raises(ConfigError, match="complexity is 3; MediaPipe has 0, 1 and 2"):
        open_detector("mediapipe", complexity=3)


def test_a_model_that_is_not_packaged_is_never_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"complexity 2 is not in its package; put https://.*heavy.tflite into .*pose_landmark"
    ):
        require_model(tmp_path, 2)


def test_mediapipe_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinema.pose.blazepose.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'kinema\[pose\]'"):
        open_detector("mediapipe")


# --- ONNX ---------------------------------------------------------------------------------------------------------------------

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the [pose] extra")


def scattered(left: float, top: float, width: float, height: float, seed: int = 0) -> np.ndarray:
    """Seventeen places in a part of a picture, none too near another."""
    cells = np.random.default_rng(seed).permutation(20)[:17]
    cells = np.stack([cells % 4 + 0.5, cells // 4 + 0.5], axis=1) / (4, 5)
    return (cells * (width, height) + (left, top)).round()


def mean_distance(found: np.ndarray, points: np.ndarray) -> float:
    assert found.shape == (1, 17, 3)
    assert (found[0, :, 2] > 0.3).all()
    return float(np.linalg.norm(found[0, :, :2] - points, axis=1).mean())


@needs_onnx
@pytest.mark.parametrize("axes", [True, False])
@pytest.mark.parametrize("size", [(96, 128), (200, 150), (120, 240)])
def test_a_network_finds_its_dots_in_a_whole_frame(tmp_path: Path, axes: bool, size: tuple[int, int]) -> None:
    model = write_network(tmp_path / "dots.onnx", axes=axes)
    points = scattered(0, 0, *size)
    frame = picture(points, *size, radius=min(size) / 6)
    found = next(iter(open_detector(str(model)).detect([frame])))
    scale = max(size[0] / 96, size[1] / 128) * 1.25  # frame pixels per pixel of the input
    assert mean_distance(found, points) < (1 if axes else 2) * scale


@needs_onnx
def test_the_box_follows_from_frame_to_frame(tmp_path: Path) -> None:
    """A small group in a large frame is seen coarsely at first and exactly from the second frame on; still pictures never."""
    model = str(write_network(tmp_path / "dots.onnx"))
    points = [scattered(200 + 3 * t, 150 + 2 * t, 200, 260) for t in range(4)]
    frames = [picture(p, 500, 500, radius=22) for p in points]
    followed = [mean_distance(f, p) for f, p in zip(open_detector(model).detect(frames), points, strict=True)]
    still = [mean_distance(f, p) for f, p in zip(open_detector(model, still=True).detect(frames), points, strict=True)]
    assert max(followed[1:]) < 0.6 * min(still)
    given = open_detector(model, view=(200, 150, 200, 260)).detect(frames)
    assert mean_distance(next(iter(given)), points[0]) < 0.75 * still[0]


@needs_onnx
def test_nobody_in_a_frame_is_nobody_and_the_next_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    model = str(write_network(tmp_path / "dots.onnx"))
    points = scattered(30, 30, 60, 80)
    shown = picture(points, 96, 128, radius=4)
    elsewhere = picture(scattered(2, 2, 60, 80), 96, 128, radius=4)
    empty = np.full_like(shown, 120)
    people = list(open_detector(model).detect([shown, empty, elsewhere]))
    assert [len(found) for found in people] == [1, 0, 1]
    alone = next(iter(open_detector(model).detect([elsewhere])))
    np.testing.assert_array_equal(people[2], alone)


def test_places_along_axes_are_divided_by_places_per_pixel() -> None:
    along_x, along_y = np.zeros((2, 8), np.float32), np.zeros((2, 12), np.float32)
    along_x[0, 3], along_y[0, 10], along_x[1, 6], along_y[1, 1] = 0.5, 0.75, 1.5, 2
    assert decode_axes(along_x, along_y, (4, 6)).tolist() == [[1.5, 5, 0.5], [3, 0.5, 1]]


def test_peaks_of_heatmaps_move_towards_the_higher_neighbour() -> None:
    maps = np.zeros((2, 4, 5), np.float32)
    maps[0, 1, 2], maps[0, 1, 3], maps[0, 0, 2] = 0.8, 0.4, 0.2
    maps[1, 3, 4] = 0.6
    assert decode_heatmaps(maps, (20, 16)).round(4).tolist() == [[9, 3, 0.8], [16, 12, 0.6]]


@needs_onnx
def test_files_that_are_no_pose_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.onnx cannot be read \(No such file or directory\); give an ONNX file"):
        open_detector(str(tmp_path / "gone.onnx"))
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigError, match=r"text.onnx is no network that onnxruntime runs"):
        open_detector(str(tmp_path / "text.onnx"))
    many = write_network(tmp_path / "many.onnx", joints=12)
    with pytest.raises(ConfigError, match=r"many.onnx gives simcc_x .*must give simcc_x and simcc_y of 1 x 17"):
        open_detector(str(many))
    model = write_network(tmp_path / "dots.onnx")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert open_detector(str(model), version=digest).version == digest
    with pytest.raises(ConfigError, match=f"is of version {digest}, and 00 is asked for"):
        open_detector(str(model), version="00")


def test_onnxruntime_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinema.pose.topdown.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnxruntime, which is not installed; pip install 'kinema\[pose\]'"):
        open_detector(str(write_network(tmp_path / "dots.onnx")))
