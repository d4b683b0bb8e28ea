"""Does a motion arrive? Motion transfer against exact ground truth, on drawn people.

``python benchmarks/transfer_performers.py WORK --minutes 15`` makes clips of a target T (one person, one stage) in
``WORK/target``, trains ``dance`` on them, lets T do what a source S does in other clips, and prints one JSON line. With ``--run
RUN`` it takes a run that was trained on ``WORK/target`` before.

Two truths, because a global normaliser keeps the source's proportions:

- retargeted: T itself filmed with S's joint angles, its feet where the normaliser puts them (the whole system);
- reachable: T's looks on S's proportions at the normalised size (the generator alone).

Joints in what was made are found by a small network that is trained here on T's clips; how far it errs on the truth's own
frames is the floor, and pasting the training frame with the nearest pose is what must be beaten.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.cli import main as kinema
from kinema.cli.trained import Trained
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.data.encode import contact_sheet, write_image
from kinema.data.figures import Identity
from kinema.data.motions import ACTIONS, Motion, sample_motion
from kinema.data.performers import Film, Placement, place, render, sample_identity, sample_stage
from kinema.data.stages import Stage
from kinema.evaluation.nearest import NearestFrames
from kinema.evaluation.pixels import planes, ssim
from kinema.pose.driving import drive
from kinema.pose.kinematics import perform
from kinema.pose.maps import soft_argmax
from kinema.pose.normalise import Normaliser, fit
from kinema.pose.sequence import Poses, concatenate
from kinema.pose.skeleton import COCO_18
from kinema.pose.stature import measure

FRAMES, FPS, SIZE = 32, 16.0, 64
STRIDE = 4  # of the keypoint network
CHUNK = 16
ANKLES, HIPS = ([COCO_18.index(f"{side}{joint}") for side in "RL"] for joint in ("Ankle", "Hip"))

Points = Float[np.ndarray, "T 18 2"]
Video = UInt8[np.ndarray, "T H W 3"]


@dataclass(frozen=True)
class Cast:
    """Who performs, and where they are filmed."""

    source: Identity
    source_stage: Stage
    target: Identity
    target_stage: Stage


def choose_cast(seed: int) -> Cast:
    """Draw two people of unequal build and two cameras."""
    rng = np.random.default_rng([seed, 0])
    source, target = sample_identity("source", rng, "red"), sample_identity("target", rng, "blue")
    return Cast(source, sample_stage(rng), target, sample_stage(rng))


def film(identity: Identity, stage: Stage, action: str, seed: Sequence[int], freedom: float) -> tuple[Motion, Film]:
    """Film one clip at a place of its own."""
    rng = np.random.default_rng(list(seed))
    motion = sample_motion(action, FRAMES, FPS, rng, freedom)
    return motion, render(motion, identity, stage, place(motion, identity, stage, rng, freedom), size=SIZE)


def write_target(folder: Path, cast: Cast, clips: int, seed: int, freedom: float) -> None:
    """Write clips of the target; every tenth is held out."""

    def clip(number: int) -> Clip:
        action = list(ACTIONS)[number % len(ACTIONS)]
        _, made = film(cast.target, cast.target_stage, action, (seed, 1, number), freedom)
        split = "test" if number % 10 == 9 else "train"
        record = ClipRecord(f"{number:05d}", "target", 0, FPS, label=action, group=f"clip-{number}", split=split)
        return Clip(record, made.video, made.pose, made.mask, made.background)

    write_shard(folder / shard_name(0), (clip(number) for number in range(clips)))
    about = {"benchmark": "transfer_performers", "seed": seed, "freedom": freedom}
    info = DatasetInfo(
        FRAMES, SIZE, SIZE, FPS, (shard_name(0),), clips, labels=tuple(ACTIONS), skeleton=COCO_18.name, settings=about
    )
    write_info(folder, info)


# --- Truth --------------------------------------------------------------------------------------------------------------------


def feet(points: Points) -> float:
    """Return the usual y of the lower ankle."""
    return float(np.median(points[:, ANKLES, 1].max(axis=1)))


def extent(points: Points) -> float:
    """Return how far joints are from their middle, root mean square."""
    return float(np.sqrt(np.square(points - points.mean(axis=1, keepdims=True)).sum(axis=-1).mean()))


def middle(points: Points) -> float:
    """Return the usual x of the hips."""
    return float(np.median(points[:, HIPS, 0].mean(axis=1)))


def seen(motion: Motion, identity: Identity, stage: Stage, where: Placement) -> Points:
    """Return where the joints of somebody appear."""
    joints = perform(motion.angles, motion.lift, identity.body).joints + np.array([where.x, 0, where.depth])
    return stage.project(joints, SIZE)


def stand(motion: Motion, identity: Identity, stage: Stage, wanted: Points) -> Placement:
    """Return the place at which somebody's feet and hips appear where those of `wanted` do, over the clip."""
    near, far = 2.0, 40.0
    for _ in range(50):
        depth = (near + far) / 2
        near, far = (depth, far) if feet(seen(motion, identity, stage, Placement(0, depth))) > feet(wanted) else (near, depth)
    depth = (near + far) / 2
    off = middle(wanted) - middle(seen(motion, identity, stage, Placement(0, depth)))
    return Placement(off * depth / (stage.focal * SIZE), depth)


def retargeted(motion: Motion, cast: Cast, wanted: Points) -> Film:
    """Film the target doing a motion, its feet where the normaliser puts those of the source."""
    where = stand(motion, cast.target, cast.target_stage, wanted)
    return render(motion, cast.target, cast.target_stage, where, size=SIZE)


def reachable(motion: Motion, cast: Cast, wanted: Points) -> Film:
    """Film the target's looks on the source's proportions, as tall as the normalised skeleton."""
    body = replace(cast.source.body, build=cast.target.body.build)
    looks = replace(cast.target, body=body)
    for _ in range(5):
        where = stand(motion, looks, cast.target_stage, wanted)
        height = looks.body.height * extent(wanted) / extent(seen(motion, looks, cast.target_stage, where))
        looks = replace(looks, body=replace(body, height=height))
    where = stand(motion, looks, cast.target_stage, wanted)
    return render(motion, looks, cast.target_stage, where, size=SIZE)


# --- Finding joints -----------------------------------------------------------------------------------------------------------


class Keypoints(nn.Module):
    """Finds the joints of a person in frames of `SIZE` pixels, by the expectation of a map per joint."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 16, 48, 64), []
        for number, (narrow, wide) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(narrow, wide, 3, stride=1 if number == 0 else 2, padding=1), nn.GroupNorm(8, wide), nn.ReLU()]
        for dilation in (1, 2, 4, 1):
            layers += [nn.Conv2d(64, 64, 3, padding=dilation, dilation=dilation), nn.GroupNorm(8, 64), nn.ReLU()]
        self.maps = nn.Sequential(*layers, nn.Conv2d(64, len(COCO_18), 1))

    def forward(self, frames: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 18 2"]:
        """Return x and y in pixels of the frame."""
        return soft_argmax(self.maps(frames), "joint") * STRIDE + (STRIDE - 1) / 2


def train_keypoints(data: Dataset, steps: int, seed: int) -> Keypoints:
    """Learn to find joints in training frames, shifted, blurred, noisy and of other brightness."""
    torch.manual_seed(seed)
    network, rng = Keypoints(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    poses = [np.asarray(data.array(index, "pose")) for index in range(len(data))]
    for _ in range(steps):
        chosen = [(int(rng.integers(len(data))), int(rng.integers(FRAMES))) for _ in range(32)]
        frames = torch.tensor(np.stack([data.video(clip, frame, 1)[0] for clip, frame in chosen])).permute(0, 3, 1, 2)
        points = torch.tensor(np.stack([poses[clip][frame] for clip, frame in chosen]))
        x, y = (int(shift) for shift in rng.integers(-6, 7, 2))
        frames = F.pad(frames.float(), (6, 6, 6, 6), mode="replicate")[:, :, 6 - y : 6 - y + SIZE, 6 - x : 6 - x + SIZE]
        if rng.random() < 0.5:
            frames = F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        frames = frames * float(rng.uniform(0.85, 1.15)) + float(rng.uniform(0, 8)) * torch.randn_like(frames)
        apart = (network(as_input(frames)) - points[..., :2] - torch.tensor([x, y])).norm(dim=-1)
        there = points[..., 2] > 0
        optimizer.zero_grad()
        (apart * there).sum().div(there.sum()).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def as_input(frames: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Scale levels to [-1, 1]."""
    return frames / 127.5 - 1


def joint_error(network: Keypoints, video: Video, pose: Float[np.ndarray, "T 18 3"]) -> float:
    """Return the mean distance in pixels of the joints found in frames from the true ones that are in the picture."""
    with torch.inference_mode():
        found = network(as_input(torch.tensor(video).permute(0, 3, 1, 2).float())).numpy()
    return float(np.linalg.norm(found - pose[..., :2], axis=-1)[pose[..., 2] > 0].mean())


# --- The transfer -------------------------------------------------------------------------------------------------------------


def poses_of(pieces: Sequence[Float32[np.ndarray, "T 18 3"]]) -> Poses:
    """Return clips as one sequence with its borders."""
    return concatenate([Poses(piece[:, None], COCO_18, SIZE, SIZE, FPS) for piece in pieces])


def compare(network: Keypoints, made: Sequence[Video], truth: Sequence[Film]) -> dict[str, float]:
    """Return how far clips are from the truth."""
    pairs = [(video, one) for video, one in zip(made, truth, strict=True)]
    return {
        "l1": round(float(np.mean([np.abs(v.astype(float) - t.video).mean() for v, t in pairs])), 3),
        "ssim": round(float(np.mean([float(ssim(planes(t.video), planes(v)).mean()) for v, t in pairs])), 4),
        "joint_px": round(float(np.mean([joint_error(network, v, t.pose) for v, t in pairs])), 3),
    }


def exact_error(poses: Sequence[Float32[np.ndarray, "T 18 3"]], truth: Sequence[Film]) -> float:
    """Return the mean distance in pixels of known joints from the true ones, where both are in the picture."""
    apart = [
        np.linalg.norm(one[..., :2] - film.pose[..., :2], axis=-1)[(one[..., 2] > 0) & (film.pose[..., 2] > 0)].mean()
        for one, film in zip(poses, truth, strict=True)
    ]
    return round(float(np.mean(apart)), 3)


def trained_run(arguments: argparse.Namespace, data: Path) -> Path:
    """Return the run, trained now unless one is given."""
    if arguments.run:
        return arguments.run
    out = arguments.work / f"run-{arguments.minutes:g}min".replace(".", "_")
    status = kinema(["train", "dance", str(data), "--out", str(out), "--preset", "laptop", "--minutes", str(arguments.minutes)])
    if status:
        raise SystemExit(status)
    return out


def learnt_keypoints(arguments: argparse.Namespace, data: Dataset) -> Keypoints:
    """Return the keypoint network, trained unless the folder has it."""
    file = arguments.work / f"keypoints-{data.fingerprint[:12]}-{arguments.keypoint_steps}.pt"
    if not file.exists():
        torch.save(train_keypoints(data, arguments.keypoint_steps, arguments.seed).state_dict(), file)
    network = Keypoints()
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", type=Path, help="a run trained on WORK/target; default: train one")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--clips", type=int, default=300, help="of the target")
    parser.add_argument("--driving", type=int, default=24, help="clips of the source")
    parser.add_argument("--freedom", type=float, default=0.65, help="of motions and places, 0 to 1")
    parser.add_argument("--keypoint-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="PNG to look at: source, made, pasted, retargeted and reachable truth")
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    cast, folder = choose_cast(arguments.seed), arguments.work / "target"
    if not (folder / "dataset.json").exists():
        write_target(folder, cast, arguments.clips, arguments.seed, arguments.freedom)
    train, held_out = Dataset(folder, "train"), Dataset(folder, "test")
    network = learnt_keypoints(arguments, train)
    trained = Trained(str(trained_run(arguments, folder)), "transfer")

    actions = [list(ACTIONS)[number % len(ACTIONS)] for number in range(arguments.driving)]
    sources = [
        film(cast.source, cast.source_stage, action, (arguments.seed, 2, number), arguments.freedom)
        for number, action in enumerate(actions)
    ]
    statistics = measure(poses_of([np.asarray(train.array(index, "pose")) for index in range(len(train))]))
    maps: list[Normaliser] = []

    def normalise(poses: Poses) -> Poses:
        maps.append(fit(poses, statistics))
        return maps[-1](poses)

    driven = drive(poses_of([made.pose for _, made in sources]), COCO_18, normalise).poses.filled()
    wanted = [driven[start : start + FRAMES] for start in range(0, len(driven), FRAMES)]
    began = time.monotonic()
    made = [np.stack(list(trained.perform(one, CHUNK))) for one in wanted]
    seconds = time.monotonic() - began
    nearest = NearestFrames(train)
    pasted = [nearest.paste(one) for one in wanted]
    pasted_poses = [nearest.poses[nearest.find(one)] for one in wanted]
    truths = {
        rule.__name__: [rule(motion, cast, one[..., :2]) for (motion, _), one in zip(sources, wanted, strict=True)]
        for rule in (retargeted, reachable)
    }
    apart = {name: exact_error(wanted, films) for name, films in truths.items()}
    held = [(held_out.video(index), np.asarray(held_out.array(index, "pose"))) for index in range(len(held_out))]
    own = [np.stack(list(trained.perform(pose, CHUNK))) for _, pose in held]
    report = {
        "benchmark": "transfer_performers",
        "run": trained.name,
        "steps": trained.metadata.steps,
        "minutes": None if arguments.run else arguments.minutes,
        "training_clips": len(train),
        "driving_clips": len(sources),
        "size": SIZE,
        "normaliser": maps[0].mode,
        "keypoint_error_px": {
            "held-out frames": round(float(np.mean([joint_error(network, video, pose) for video, pose in held])), 3),
            **{
                name: round(float(np.mean([joint_error(network, t.video, t.pose) for t in films])), 3)
                for name, films in truths.items()
            },
        },
        "truth_from_driving_skeleton_px": apart,
        "made": {name: compare(network, made, films) for name, films in truths.items()},
        "pasted": {name: compare(network, pasted, films) for name, films in truths.items()},
        "pasted_exact_joint_px": {name: exact_error(pasted_poses, films) for name, films in truths.items()},
        "own_held_out": compare(network, own, [Film(v, p, v[..., 0], v[0]) for v, p in held]),
        "frames_per_second": round(sum(map(len, made)) / seconds, 1),
    }
    if arguments.sheet:
        columns = zip([f for _, f in sources], made, pasted, *truths.values(), strict=True)
        rows = [clip for s, m, p, one, other in list(columns)[:6] for clip in (s.video, m, p, one.video, other.video)]
        write_image(arguments.sheet, contact_sheet(rows))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
