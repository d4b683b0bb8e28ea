"""A trained system behind the sampling verbs: pixels in, pixels out. Imported when a verb starts to work: it needs torch."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from kinema.core.config import override, to_mapping
from kinema.core.errors import CheckpointError, ConfigError, EvaluationError
from kinema.core.sampling import Sampling
from kinema.core.seeds import numpy_generator
from kinema.core.system import System
from kinema.core.tasks import abilities
from kinema.core.types import ClipShape, Video
from kinema.data.clean_plate import settled
from kinema.data.dataset import Dataset
from kinema.data.fitting import Fit
from kinema.evaluation.clips import PIXELS, Clip, Source, open_clips
from kinema.evaluation.completion import Completer
from kinema.evaluation.judge import refuse_unlike
from kinema.evaluation.paired import Pairing
from kinema.pose.found_by import FoundBy, of_run
from kinema.pose.stature import BodyStatistics
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX, load_checkpoint, resolve, run_name
from kinema.training.distributed import choose_device
from kinema.training.sheets import to_pixels

USUAL_FPS = 25.0  # of a checkpoint that does not say how fast its clips run

Clips = UInt8[np.ndarray, "B T H W 3"]


class Trained:
    """A system out of a checkpoint, on its device.

    Args:
        run: run directory, checkpoint file or ``zoo:NAME``.
        wanted: what is wanted of it, out of `kinema.core.tasks.PROTOCOLS`; of several, the first that it has becomes `ability`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        CheckpointError: when there is no such checkpoint, or its system lacks the ability.
        TrainingError: for a device that is not there.
    """

    def __init__(self, run: str, wanted: str | Sequence[str], device: str = "auto") -> None:
        self.device = choose_device(device)
        self._file = resolve(run)
        checkpoint = load_checkpoint(self._file)
        self.system: Any = checkpoint.system.to(self.device)
        self.metadata = checkpoint.metadata
        self.name = run_name(run)
        self.ability = refuse_unable(checkpoint.system, [wanted] if isinstance(wanted, str) else wanted)

    @property
    def fps(self) -> float:
        """Frames per second of the clips it was trained on."""
        return float(self.metadata.dataset.get("fps") or USUAL_FPS)

    @property
    def fit(self) -> Fit:
        """How footage came into the frames of the clips it was trained on."""
        return self.metadata.dataset.get("fit", "crop")  # checkpoints of the first releases do not say

    @property
    def poses_found_by(self) -> FoundBy | None:
        """The detector that found the poses it was trained on; None where its checkpoint does not say."""
        return of_run(self.metadata.dataset)

    @torch.inference_mode()
    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Clips:
        """Return a clip per seed, of the classes that are asked for."""
        wanted = {} if labels is None else {"label": self._labels(labels)}
        return to_pixels(self.system.generate(seeds, **wanted))

    @torch.inference_mode()
    def diffuse(
        self,
        seeds: Sequence[int],
        shape: ClipShape,
        labels: Sequence[int] | None = None,
        captions: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Clips:
        """Return a clip per seed out of noise."""
        return to_pixels(
            self.system.diffuse(seeds, shape=shape, label=self._labels(labels), caption=captions, sampling=sampling)
        )

    @torch.inference_mode()
    def inpaint(
        self,
        clips: Clips,
        known: Bool[np.ndarray, "B T H W"],
        seeds: Sequence[int],
        labels: Sequence[int] | None = None,
        captions: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        *,
        paste: bool = True,
    ) -> Clips:
        """Return the clips with what is unknown filled in; without `paste`, what is known as the system remembers it."""
        video, mask = self.video(clips), torch.from_numpy(known).to(self.device)[:, None].float()
        asked = {"label": self._labels(labels), "caption": captions, "sampling": sampling}
        return to_pixels(self.system.inpaint(video, mask, seeds=seeds, **asked, paste=paste))

    def _labels(self, labels: Sequence[int] | None) -> Tensor | None:
        return None if labels is None else torch.tensor(labels, device=self.device)

    @property
    def diffuses(self) -> bool:
        """Whether it makes clips out of noise in steps."""
        return "diffuse" in abilities(self.system)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it can be asked for: "label", "caption"."""
        if self.diffuses:
            return self.system.conditions
        return ("label",) if "label" in self.system.needs else ()

    def sampling(self, chosen: Mapping[str, Any]) -> Sampling | None:
        """Return how it is sampled: as it is by itself but for what is chosen; None for a system that does not diffuse.

        Args:
            chosen: field of `Sampling` -> value; None leaves it alone.

        Raises:
            ConfigError: for a value out of range, or one that is chosen for a system that does not diffuse.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        if not self.diffuses:
            if given:
                raise ConfigError(
                    f"{self.name} holds {self.system.name}, which takes no steps; leave out "
                    f"--{next(iter(given)).replace('_', '-')}"
                )
            return None
        return override(self.system.sampling, given)

    @torch.inference_mode()
    def streams(self, seeds: Sequence[int]) -> tuple[Mapping[str, Clips], Tensor]:
        """Return the streams by name, and the least, mean and greatest value of the mask of every clip, shape (B, 3)."""
        streams = self.system.streams(seeds)
        mask = (streams["mask"].float() + 1).div(2).flatten(1) if "mask" in streams else torch.zeros(len(seeds), 1)
        ranges = torch.stack([mask.amin(dim=1), mask.mean(dim=1), mask.amax(dim=1)], dim=1)
        return {name: to_pixels(video) for name, video in streams.items()}, ranges

    @torch.inference_mode()
    def interpolate(self, start: int, end: int, steps: int) -> Clips:
        """Return clips that lead from one seed to another."""
        return to_pixels(self.system.interpolate(start, end, steps))

    @torch.inference_mode()
    def trajectory(
        self,
        seed: int,
        moments: int,
        labels: Sequence[int] | None = None,
        captions: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> list[UInt8[np.ndarray, "T H W 3"]]:
        """Return how a clip comes out of noise."""
        asked = {"label": self._labels(labels), "caption": captions, "sampling": sampling}
        return [to_pixels(video)[0] for video in self.system.trajectory([seed], moments, **asked)]

    @torch.inference_mode()
    def noised(self, clip: UInt8[np.ndarray, "T H W 3"], moments: int, seed: int) -> list[UInt8[np.ndarray, "T H W 3"]]:
        """Return how a clip turns into noise."""
        return [to_pixels(video)[0] for video in self.system.noised(self.video(clip[None]), moments, seed=seed)]

    @torch.inference_mode()
    def predict(self, past: UInt8[np.ndarray, "B past H W 3"], seeds: Sequence[int]) -> Clips:
        """Return the future of every past."""
        return to_pixels(self.system.predict(self.video(past), seeds=seeds))

    @torch.inference_mode()
    def forecast(
        self, clips: Sequence[UInt8[np.ndarray, "T H W 3"]], poses: Sequence[Float32[np.ndarray, "T J 3"]], seeds: Sequence[int]
    ) -> list[UInt8[np.ndarray, "T H W 3"]]:
        """Return clips that begin as others do and go on as one future of poses is rendered."""
        system, past = self.system, self.system.past_frames
        video = self.video(np.stack(clips))
        joints = torch.from_numpy(np.stack(poses)).to(self.device)
        futures = system.forecast_poses(video[:, :, :past], joints[:, :past], seeds=seeds, futures=1)[:, 0]
        rendered = to_pixels(
            system.render_poses(video[:, :, past - 1], torch.cat([joints[:, past - 1 : past], futures], dim=1))
        )
        return [np.concatenate([clip[:past], made[1:]]) for clip, made in zip(clips, rendered, strict=True)]

    @property
    def renders(self) -> bool:
        """Whether the stage of the last training is the last of the system's stages: for one that forecasts, rendering."""
        return self.metadata.stage == [name for name in self.system.stages() if name not in self.system.skipped()][-1]

    @torch.inference_mode()
    def reconstruct(self, clips: Clips) -> Clips:
        """Return the clips as the system remembers them."""
        return to_pixels(self.system.reconstruct(self.video(clips)))

    def perform(self, pose: Float32[np.ndarray, "T J 3"], chunk: int, restart: int = 0) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Yield the person that the system knows, a frame per pose; memory does not grow with their number.

        Args:
            pose: joints in pixels of the system's frames; confidence 0 is missing.
            chunk: frames that are made at a time; changes nothing but memory and speed.
            restart: forget the frame before every so many frames; 0 is never.
        """
        previous: Tensor | None = None
        edges = range(0, len(pose), chunk) if not restart else _edges(len(pose), chunk, restart)
        for start, stop in pairwise([*edges, len(pose)]):
            if restart and start % restart == 0:
                previous = None
            with torch.inference_mode():
                joints = torch.tensor(pose[None, start:stop], device=self.device)
                video = self.system.transfer(joints, previous=previous)
                previous = video[:, :, -1]
                pixels = to_pixels(video)[0]
            yield from pixels

    def transfer(self, pose: Float32[np.ndarray, "B T J 3"]) -> Clips:
        """Return clips of the person that the system knows in the poses."""
        with torch.inference_mode():
            return to_pixels(self.system.transfer(torch.tensor(pose, device=self.device)))

    def target_statistics(self) -> BodyStatistics:
        """Return where the person stands that the system was trained on, and how tall they are."""
        return self.system.target_statistics()

    @cached_property
    def sha256(self) -> str:
        """Digest of the checkpoint file."""
        return hashlib.sha256(self._file.read_bytes()).hexdigest()

    def video(self, clips: Clips) -> Video:
        """Return clips as the system takes them."""
        return torch.from_numpy(clips).to(self.device).permute(0, 4, 1, 2, 3).div(127.5).sub_(1)


def _edges(length: int, chunk: int, restart: int) -> list[int]:
    """Return where chunks begin so that none reaches across a new start."""
    return [edge for begin in range(0, length, restart) for edge in range(begin, min(begin + restart, length), chunk)]


def refuse_unable(system: System[Any], wanted: Sequence[str]) -> str:
    """Return the first wanted ability that a system has.

    Raises:
        CheckpointError: when it has none, naming the systems that have one.
    """
    if found := [ability for ability in wanted if ability in abilities(system)]:
        return found[0]
    able = [name for name, other in SYSTEMS.items() if set(wanted) & set(abilities(other))]
    words = {"streams": "show streams", "transfer": "transfer motion", "diffuse": "generate"}
    verbs = " or ".join(dict.fromkeys(words.get(ability, ability) for ability in wanted))
    raise CheckpointError(f"{system.name} cannot {verbs}; systems that can: {', '.join(able) or 'none'}")


def is_system(name: str) -> bool:
    """Tell whether a name stands for a trained system, and not for clips."""
    path = Path(name)
    return name.startswith(ZOO_PREFIX) or path.suffix == ".safetensors" or (path / CHECKPOINT_NAME).exists()


def open_source(
    name: str, device: str = "auto", beginnings: Path | None = None, sampling: Mapping[str, Any] | None = None
) -> Source:
    """Return the clips to be judged that a name stands for.

    Args:
        name: run directory, checkpoint file or ``zoo:NAME``, which make clips out of seeds; or a dataset, a folder of clip
            files or an ``.npy``, which hold them.
        device: where a system makes them.
        beginnings: dataset whose held-out clips a system continues that only predicts, and whose classes and captions one that
            diffuses is asked for; None refuses the first and asks the second for nothing.
        sampling: what is chosen of how a system is sampled that diffuses, see `Trained.sampling`.

    Raises:
        EvaluationError: when there is no such thing, or it holds no clips.
        CheckpointError: for a damaged checkpoint, or a system that does not generate.
        ConfigError: for a choice of sampling where nothing diffuses.
        DataError: for a dataset without held-out clips.
    """
    path, chosen = Path(name), sampling or {}
    if is_system(name):
        return _system_source(name, device, beginnings, chosen)
    if given := next((option for option, value in chosen.items() if value is not None), None):
        raise ConfigError(f"--{given} is for a run that makes clips in steps, and {name} is none")
    if not path.exists():
        raise EvaluationError(f"{path} does not exist; give a run, a checkpoint file, zoo:NAME, a dataset or a folder of clips")
    return open_clips(path)


def _system_source(name: str, device: str, data: Path | None, chosen: Mapping[str, Any]) -> Source:
    trained = Trained(name, ("generate", "diffuse") if data is None else ("generate", "diffuse", "predict"), device)
    about, fps, sampling = describe_run(trained), trained.metadata.dataset.get("fps"), trained.sampling(chosen)
    rate, shape = float(fps) if fps else None, trained.metadata.clip
    if sampling:
        about["sampling"] = to_mapping(sampling)
    if data is None or trained.ability != "predict":
        asks = _Asks(trained, data, sampling)
        if trained.diffuses:
            about["asked for"] = asks.said
        read = _remembering(asks.like_training) if trained.diffuses else asks.like_training
        source = Source(name, shape, rate, PIXELS, None, read, about)
        by_label = asks.by_label()
        labels = tuple(trained.metadata.dataset.get("labels", ()))
        return source if by_label is None else replace(source, by_label=by_label, labels=labels)
    held_out = Dataset(data, "test")

    def read_futures(indices: Sequence[int]) -> list[UInt8[np.ndarray, "T H W 3"]]:
        return _futures(trained, [held_out.video(index) for index in indices], indices)

    past = trained.system.past_frames
    about["predicted from"] = f"the first {'frame' if past == 1 else f'{past} frames'} of clips of the split 'test'"
    return Source(name, shape, rate, PIXELS, len(held_out), read_futures, about)


REMEMBERED = 2**30  # bytes of clips that took many steps, which a judge looks at several times


def _remembering(make: Callable[[Sequence[int]], list[Clip]]) -> Callable[[Sequence[int]], list[Clip]]:
    """Keep clips that were made, while there is room."""
    kept: dict[int, Clip] = {}

    def read(seeds: Sequence[int]) -> list[Clip]:
        new = [seed for seed in seeds if seed not in kept]
        made = dict(zip(new, make(new), strict=True)) if new else {}
        for seed, clip in made.items():
            if (len(kept) + 1) * clip.nbytes <= REMEMBERED:
                kept[seed] = clip
        return [made[seed] if seed in made else kept[seed] for seed in seeds]

    return read


class _Asks:
    """Asks a system for clips: of the classes and captions of a dataset, where it takes some.

    Args:
        trained: the system.
        data: dataset; None asks for nothing.
        sampling: of a system that diffuses.
    """

    def __init__(self, trained: Trained, data: Path | None, sampling: Sampling | None) -> None:
        self._trained, self._sampling = trained, sampling
        self._data = data
        self._training = Dataset(data, "train") if data and trained.diffuses and trained.conditions else None
        self._kinds = [] if self._training is None else known_conditions(trained, self._training)

    @property
    def said(self) -> str:
        """What is asked for, in words."""
        return f"{' and '.join(self._kinds)} of training clips, drawn by the seed" if self._kinds else "nothing"

    def like_training(self, seeds: Sequence[int]) -> list[Clip]:
        """Make clips of the classes and captions of training clips, in the training clips' shares."""
        wanted: dict[str, Any] = {}
        if self._training is not None and self._kinds:
            some = [int(numpy_generator(seed, 4).integers(len(self._training))) for seed in seeds]
            wanted = conditions_of(self._training, some, self._kinds)
        return self._made(seeds, **wanted)

    def by_label(self) -> Callable[[Sequence[int], Sequence[int]], list[Clip]] | None:
        """Return what asks for classes: by number, or by captions of held-out clips of them; None where neither can be."""
        if "label" in self._trained.conditions:
            return lambda seeds, labels: self._made(seeds, labels=labels)
        sentences = self._sentences() if "caption" in self._trained.conditions and self._data else {}
        names = self._trained.metadata.dataset.get("labels", ())
        if not names or any(label not in sentences for label in range(len(names))):
            return None

        def make(seeds: Sequence[int], labels: Sequence[int]) -> list[Clip]:
            captions = [sentences[label][seed % len(sentences[label])] for seed, label in zip(seeds, labels, strict=True)]
            return self._made(seeds, captions=captions)

        return make

    def _made(self, seeds: Sequence[int], **wanted: Any) -> list[Clip]:
        if self._trained.diffuses:
            return list(self._trained.diffuse(seeds, self._trained.metadata.clip, **wanted, sampling=self._sampling))
        return list(self._trained.generate(seeds, **wanted))

    def _sentences(self) -> dict[int, list[str]]:
        """Return the captions of the held-out clips of every class."""
        every = Dataset(self._data or "")
        found: dict[int, list[str]] = {}
        for record in map(every.record, range(len(every))):
            if record.split == "test" and record.label is not None and record.caption:
                found.setdefault(every.info.labels.index(record.label), []).append(record.caption)
        return found


def known_conditions(trained: Trained, data: Dataset) -> list[str]:
    """Return which of the conditions of a system the clips of a dataset carry; classes must be those it was trained on."""
    same = data.labels is not None and data.info.labels == tuple(trained.metadata.dataset.get("labels", ()))
    told = all(data.record(index).caption for index in range(len(data)))
    carried = {"label": same, "caption": told}
    return [kind for kind in trained.conditions if carried[kind]]


def conditions_of(data: Dataset, indices: Sequence[int], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the classes and captions of clips, as `Trained.diffuse` takes them."""
    found: dict[str, Any] = {}
    if "label" in kinds and data.labels is not None:
        found["labels"] = data.labels[list(indices)].tolist()
    if "caption" in kinds:
        found["captions"] = [data.record(index).caption for index in indices]
    return found


def open_completer(
    name: str,
    data: Path,
    split: str | None,
    device: str = "auto",
    sampling: Mapping[str, Any] | None = None,
    clean_plate: bool = True,
) -> tuple[Completer, Dataset]:
    """Return what completes clips of a dataset, and these clips.

    Args:
        name: run directory, checkpoint file or ``zoo:NAME``.
        data: a prepared dataset.
        split: of its clips; None for all.
        device: where the system works.
        sampling: what is chosen of how it is sampled; with a guidance it is told the class and caption of every clip, and else
            nothing beside the known pixels.
        clean_plate: as ``kinema inpaint`` does, what other frames show is taken where it agrees.

    Raises:
        CheckpointError: for a damaged checkpoint, or a system that does not inpaint.
        ConfigError: for a choice of sampling, or a guidance, that it has no use for.
        DataError: for a damaged dataset, or one without the split.
    """
    trained, real = Trained(name, "inpaint", device), Dataset(data, split)
    chosen = trained.sampling(sampling or {})
    guided = (sampling or {}).get("guidance") is not None
    kinds = known_conditions(trained, real) if guided else []
    if guided and not kinds:
        raise ConfigError(
            f"--guidance exaggerates a class or a caption: {name} takes {' and '.join(trained.conditions) or 'neither'}, and "
            f"the clips of {data} carry none that it knows; leave out --guidance"
        )

    def complete(
        clips: Sequence[Clip], known: Bool[np.ndarray, "N T H W"], places: Sequence[int], seeds: Sequence[int]
    ) -> list[Clip]:
        told = conditions_of(real, places, kinds)
        made = trained.inpaint(np.stack(clips), known, seeds, **told, sampling=chosen, paste=False)
        return [settled(*each) for each in zip(made, clips, known, strict=True)] if clean_plate else list(made)

    remembers = "reconstruct" in abilities(trained.system)
    completer = Completer(
        name=name,
        shape=trained.metadata.clip,
        complete=complete,
        remember=(lambda clips: list(trained.reconstruct(np.stack(clips)))) if remembers else None,
        condition=f"its {' and '.join(kinds)}" if kinds else "nothing",
        about={**describe_run(trained), **({"sampling": to_mapping(chosen)} if chosen else {}), "clean plate": clean_plate},
    )
    return completer, real


def open_pairing(name: str, data: Path, split: str | None, device: str = "auto") -> Pairing:
    """Return what a system makes of clips of a dataset beside these clips: their future, their reconstruction, or its person.

    Args:
        name: run directory, checkpoint file or ``zoo:NAME``.
        data: a prepared dataset.
        split: of its clips; None for all.
        device: where the system works.

    Raises:
        CheckpointError: for a damaged checkpoint, a system that neither predicts, forecasts, reconstructs nor transfers motion,
            or one that has not yet learnt to render what it forecasts.
        DataError: for a damaged dataset, one without the split, or without the poses that a system forecasts from.
        EvaluationError: for clips of another shape or rate than the system's, or of other poses than it wants.
    """
    trained, real = Trained(name, ("predict", "forecast", "reconstruct", "transfer"), device), Dataset(data, split)
    fps = trained.metadata.dataset.get("fps")
    if trained.ability == "transfer":
        return _reenacting(name, trained, real, split)
    refuse_unlike(Source(name, trained.metadata.clip, float(fps) if fps else None, PIXELS, None, lambda seeds: []), real)
    predicts = trained.ability != "reconstruct"
    if trained.ability == "forecast":
        real.require("pose")
        if not trained.renders:
            raise CheckpointError(f"{name} has learnt to forecast poses and not yet to render them; train its last stage")

    def truth(indices: Sequence[int]) -> list[UInt8[np.ndarray, "T H W 3"]]:
        return [real.video(index) for index in indices]

    def make(indices: Sequence[int], draw: int) -> list[UInt8[np.ndarray, "T H W 3"]]:
        if not predicts:
            return list(trained.reconstruct(np.stack(truth(indices))))
        seeds = [draw * len(real) + index for index in indices]  # one of its own for every future of every clip
        if trained.ability == "forecast":
            return trained.forecast(
                truth(indices), [np.array(real.array(index, "pose"), np.float32) for index in indices], seeds
            )
        return _futures(trained, truth(indices), seeds)

    return Pairing(
        kind="predictions" if predicts else "reconstructions",
        name=name,
        truth_name=real.path.resolve().name,
        count=len(real),
        shape=real.shape,
        fps=real.info.fps,
        past=trained.system.past_frames if predicts else 0,
        truth=truth,
        make=make,
        key=lambda index: real.record(index).key,
        protocol={"real data": real.fingerprint, "split": split or "all"},
        about=describe_run(trained),
    )


def _reenacting(name: str, trained: Trained, real: Dataset, split: str | None) -> Pairing:
    """Return clips of a person that a system makes out of the clips' own poses, beside these clips."""
    refuse_other_person(name, trained, real)

    def make(indices: Sequence[int], draw: int) -> list[UInt8[np.ndarray, "T H W 3"]]:
        return list(trained.transfer(np.stack([stored_pose(real, index) for index in indices])))

    return Pairing(
        kind="transfers",
        name=name,
        truth_name=real.path.resolve().name,
        count=len(real),
        shape=real.shape,
        fps=real.info.fps,
        past=0,
        truth=lambda indices: [real.video(index) for index in indices],
        make=make,
        key=lambda index: real.record(index).key,
        protocol={"real data": real.fingerprint, "split": split or "all"},
        about=describe_run(trained),
    )


def refuse_other_person(name: str, trained: Trained, real: Dataset) -> None:
    """Refuse clips that a system that transfers motion cannot be asked to re-enact.

    Raises:
        EvaluationError: for clips without poses, of another layout of joints, or of another size.
    """
    wanted = trained.system.skeleton
    if "pose" not in real.arrays:
        raise EvaluationError(f"the clips of {real.path} carry no poses; prepare them with --pose to judge {name}")
    if real.info.skeleton != wanted:
        raise EvaluationError(f"{real.path} holds poses of skeleton {real.info.skeleton}; {name} was trained on {wanted}")
    height, width = trained.system.frame_shape
    if (real.shape.height, real.shape.width) != (height, width):
        raise EvaluationError(
            f"the clips of {real.path} are {real.shape.width}x{real.shape.height}; {name} makes frames of {width}x{height}"
        )


def stored_pose(data: Dataset, index: int) -> Float32[np.ndarray, "T J 3"]:
    """Return the poses of a clip."""
    return np.asarray(data.array(index, "pose"), np.float32)


def describe_run(trained: Trained) -> dict[str, Any]:
    """Return what a report says of a run."""
    return {
        "system": trained.metadata.system,
        "stage": trained.metadata.stage,
        "steps": trained.metadata.steps,
        "checkpoint sha256": trained.sha256,
    }


def _futures(
    trained: Trained, clips: Sequence[UInt8[np.ndarray, "T H W 3"]], seeds: Sequence[int]
) -> list[UInt8[np.ndarray, "T H W 3"]]:
    """Return clips that begin as others do and go on as a system imagines."""
    past = np.stack([clip[: trained.system.past_frames] for clip in clips])
    made = trained.predict(past, seeds)
    if made.shape[1] + past.shape[1] == trained.metadata.clip.frames:  # the system returns what follows alone
        made = np.concatenate([past, made], axis=1)
    return list(made)
