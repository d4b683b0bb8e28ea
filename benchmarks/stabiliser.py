"""Accuracy of the stabiliser on footage whose camera path is known; prints one JSON line.

Sixteen clips: 20, 60, 200 or 600 shapes on a plain background, four camera paths each, and a foreground that crosses the
picture. Beside our gated similarity stand the same stabiliser without gates and the method of VGAN's released code
(homographies chained from frame to frame). Errors are in pixels, against the true camera path, on kept clips only.

    python benchmarks/stabiliser.py
"""

import json
import time
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from kinema.data.stabilise import GATES, Segment, StabiliseSettings, stabilise

FRAMES, HEIGHT, WIDTH = 32, 240, 320
TEXTURES = (20, 60, 200, 600)
SCENES = (0, 1, 2, 3)
PROBES = np.array([(WIDTH * x, HEIGHT * y, 1) for x, y in ((0.15, 0.15), (0.85, 0.15), (0.15, 0.85), (0.85, 0.85), (0.5, 0.5))])


def shaken_clip(shapes: int, scene: int) -> tuple[UInt8[np.ndarray, "T H W 3"], Float64[np.ndarray, "T 3 3"]]:
    """Draw a scene, shake the camera, and return the clip with the true transforms from every frame to the first."""
    canvas = _canvas(shapes, np.random.default_rng(scene))
    camera = np.random.default_rng(scene + 99)
    x = y = angle = 0.0
    frames, views = [], []
    for t in range(FRAMES):
        x, y, angle = x + camera.normal(0, 1.2), y + camera.normal(0, 1.2), angle + camera.normal(0, 0.15)
        view = cv2.getRotationMatrix2D((320, 240), angle, 1.0)
        view[:, 2] += (x - WIDTH / 2, y - HEIGHT / 2)
        frame = cv2.warpAffine(canvas, view, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        _draw_foreground(frame, t)
        noisy = frame + camera.normal(0, 3, frame.shape)
        frames.append(noisy.clip(0, 255).astype(np.uint8)[..., ::-1])  # drawn in OpenCV's order of channels
        views.append(np.vstack([view, (0, 0, 1)]))
    return np.stack(frames), np.stack([views[0] @ np.linalg.inv(view) for view in views])


def _canvas(shapes: int, scene: np.random.Generator) -> UInt8[np.ndarray, "480 640 3"]:
    canvas = np.full((480, 640, 3), 120, np.uint8)
    for _ in range(shapes):
        x, y = int(scene.integers(0, 640)), int(scene.integers(0, 480))
        colour = tuple(int(value) for value in scene.integers(0, 255, 3))
        size = int(scene.integers(6, 40))
        if scene.random() < 0.5:
            cv2.circle(canvas, (x, y), size, colour, -1)
        else:
            cv2.rectangle(canvas, (x, y), (x + size, y + size), colour, -1)
    return cv2.GaussianBlur(canvas, (3, 3), 0)


def _draw_foreground(frame: UInt8[np.ndarray, "H W 3"], t: int) -> None:
    cv2.circle(frame, ((30 + 8 * t) % WIDTH, 150), 28, (20, 200, 240), -1)
    for k in range(6):
        cv2.circle(frame, (20 + 8 * t + 6 * k, 145 + 3 * k), 4, (40 * k, 10, 90), -1)


def errors(found: Float64[np.ndarray, "T _ 3"], truth: Float64[np.ndarray, "T 3 3"]) -> Float64[np.ndarray, "t"]:
    """Mean distance over five points between found and true positions in the first frame; frames 1 and later."""
    mapped = np.einsum("tij,pj->tpi", found, PROBES)
    if found.shape[1] == 3:
        mapped = mapped[..., :2] / mapped[..., 2:]
    true = np.einsum("tij,pj->tpi", truth[:, :2], PROBES)
    return np.linalg.norm(mapped - true, axis=-1).mean(axis=1)[1:]


def kept_whole(clip: UInt8[np.ndarray, "T H W 3"], settings: StabiliseSettings) -> Segment | None:
    """Stabilise a clip; None unless it stays in one piece."""
    first = next(stabilise(clip, settings))
    return first if len(first.frames) == len(clip) else None


def released_method(clip: UInt8[np.ndarray, "T H W 3"]) -> Float64[np.ndarray, "T 3 3"]:
    """VGAN's released stabiliser: SIFT, homographies (RANSAC 5 px) chained from frame to frame, no test of the fit.

    The release crashes when no homography is found; here the chain then stands still.
    """
    sift = cv2.SIFT.create()
    chain, previous = [np.eye(3)], None
    for frame in [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in clip]:
        points, descriptors = sift.compute(frame, sift.detect(frame))
        if previous is not None:
            trees = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 5}, {"checks": 50})
            pairs = trees.knnMatch(descriptors, previous[1], k=2)
            good = [a for a, b in pairs if a.distance < 0.7 * b.distance]
            step = None
            if len(good) >= 10:
                source = np.array([points[match.queryIdx].pt for match in good], np.float32)
                target = np.array([previous[0][match.trainIdx].pt for match in good], np.float32)
                step, _ = cv2.findHomography(source, target, cv2.RANSAC, 5.0)
            chain.append(chain[-1] @ (np.eye(3) if step is None else step))
        previous = points, descriptors
    return np.stack(chain)


def measure(settings: StabiliseSettings) -> dict[str, dict[str, float | int | None]]:
    """Return per texture how many clips were kept, their mean error, and their worst frame's."""
    table = {}
    for shapes in TEXTURES:
        kept = []
        for scene in SCENES:
            clip, truth = shaken_clip(shapes, scene)
            segment = kept_whole(clip, settings)
            if segment is not None:
                kept.append(errors(segment.transforms, truth))
        table[str(shapes)] = {
            "kept": len(kept),
            "error": round(float(np.mean(kept)), 3) if kept else None,
            "worst_clip": round(float(max(np.mean(clip) for clip in kept)), 3) if kept else None,
            "worst_frame": round(float(np.max(kept)), 3) if kept else None,
        }
    return table


def main() -> None:
    cv2.setNumThreads(1)
    gated = StabiliseSettings()
    started = time.perf_counter()
    result = {"gated": measure(gated)}
    seconds = time.perf_counter() - started
    result["without_hull_gate"] = measure(replace(gated, gates=tuple(gate for gate in GATES if gate != "hull")))
    result["without_gates"] = measure(replace(gated, gates=(), minimum_coverage=0.0))
    released = {}
    for shapes in TEXTURES:
        clips = [shaken_clip(shapes, scene) for scene in SCENES]
        means = [float(errors(released_method(clip), truth).mean()) for clip, truth in clips]
        released[str(shapes)] = {
            "kept": len(means),
            "error": round(float(np.mean(means)), 2),
            "best_clip": round(min(means), 2),
        }
    result["released_method"] = released
    frames_per_second = len(TEXTURES) * len(SCENES) * FRAMES / seconds
    print(json.dumps({"benchmark": "stabiliser", "frames_per_second": round(frames_per_second, 1), **result}))


if __name__ == "__main__":
    main()
