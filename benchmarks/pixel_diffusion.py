"""Diffusion in a latent against plain diffusion in pixels: same clips, same minutes, same Frechet distance.

``python benchmarks/pixel_diffusion.py DATA RUN --minutes 10 [--sheet SHEET.png]`` trains the plain rival on the training clips
of DATA for as long as RUN (latent-video-dit) was, judges both and prints one JSON line: both distances with the floor of real
clips, steps, seconds of a step of either side (RUN: of its transformer, in its own log) and their ratio.

The rival is what one writes first: a 3-D U-Net on pixels in fp32, noise predicted at 1,000 linear betas (DDPM), AdamW, batches
as large as RUN's, DDIM in 50 steps, no average of weights, no condition. Only what a working version needs is there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.cli.trained import open_source
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.data.encode import contact_sheet, write_image
from kinema.evaluation.clips import PIXELS, Source
from kinema.evaluation.features import PACKAGED, open_features
from kinema.evaluation.judge import Question, judge
from kinema.evaluation.measures import store_folder
from kinema.training.runlog import read_description, read_metrics

STEPS, SAMPLING_STEPS = 1000, 50
LEARNING_RATE, WIDTH = 2e-4, 32
SHOWN = 6

Clip = UInt8[np.ndarray, "T H W 3"]
Video = Float[Tensor, "B 3 T H W"]


class Block(nn.Module):
    """Two convolutions with the time between them, and what came in on top."""

    def __init__(self, before: int, after: int, time_width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv3d(before, after, 3, padding=1))
        self.time = nn.Linear(time_width, after)
        self.second = nn.Sequential(nn.GroupNorm(8, after), nn.SiLU(), nn.Conv3d(after, after, 3, padding=1))
        self.skip = nn.Conv3d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.skip(x) + self.second(self.first(x) + self.time(time)[:, :, None, None, None])


class PixelUNet(nn.Module):
    """Three resolutions of space, and of time where frames allow; a block each on the way down and up, two at the bottom."""

    def __init__(self, shape: ClipShape, width: int) -> None:
        super().__init__()
        widths, time_width = (width, 2 * width, 4 * width), 4 * width
        halves = [2 if shape.frames % 2 ** (level + 1) == 0 else 1 for level in range(2)]
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time_width), nn.SiLU(), nn.Linear(time_width, time_width))
        self.begin = nn.Conv3d(3, width, 3, padding=1)
        self.down = nn.ModuleList([Block(w, w, time_width) for w in widths[:2]])
        self.halve = nn.ModuleList(
            [
                nn.Conv3d(a, b, (2 * half - 1, 3, 3), (half, 2, 2), (half - 1, 1, 1))
                for (a, b), half in zip(pairwise(widths), halves, strict=True)
            ]
        )
        self.bottom = nn.ModuleList([Block(widths[2], widths[2], time_width) for _ in range(2)])
        self.narrow = nn.ModuleList([nn.Conv3d(b, a, 1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([Block(2 * w, w, time_width) for w in widths[:2]])
        self.end = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv3d(width, 3, 3, padding=1))

    def forward(self, x: Video, step: Int[Tensor, "B"]) -> Video:
        """Return the noise that it sees."""
        rates = torch.exp(torch.arange(self.width // 2, device=x.device) * (-np.log(10_000) / (self.width // 2)))
        angles = step[:, None] * rates
        time = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)))
        x, kept = self.begin(x), []
        for block, halve in zip(self.down, self.halve, strict=True):
            x = block(x, time)
            kept.append(x)
            x = halve(x)
        for block in self.bottom:
            x = block(x, time)
        for level in (1, 0):
            x = F.interpolate(self.narrow[level](x), size=kept[level].shape[2:], mode="nearest")
            x = self.up[level](torch.cat([x, kept[level]], dim=1), time)
        return self.end(x)


class Diffusion:
    """DDPM's forward process and simple loss (Ho et al. 2020, Equations 4 and 14), and DDIM (Song et al. 2021, Equation 12)."""

    def __init__(self, network: nn.Module, shape: ClipShape, device: torch.device) -> None:
        self.network, self.shape, self.device = network, shape, device
        self.alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), 0).float().to(device)

    def loss(self, clean: Video) -> Tensor:
        """Return the mean squared error of the noise at random steps."""
        step = torch.randint(STEPS, (len(clean),), device=self.device)
        alpha, noise = self.alphas[step].reshape(-1, 1, 1, 1, 1), torch.randn_like(clean)
        return F.mse_loss(self.network(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, step), noise)

    @torch.inference_mode()
    def sample(self, seeds: Sequence[int]) -> list[Clip]:
        """Return a clip per seed."""
        size = (3, self.shape.frames, self.shape.height, self.shape.width)
        x = torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])
        x = x.to(self.device)
        visited = list(range(0, STEPS, STEPS // SAMPLING_STEPS))[::-1]
        for step, then in zip(visited, [*visited[1:], -1], strict=True):
            alpha = self.alphas[step]
            noise = self.network(x, torch.full((len(x),), step, device=self.device))
            clean = ((x - (1 - alpha).sqrt() * noise) / alpha.sqrt()).clamp(-1, 1)
            noise = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
            after = self.alphas[then] if then >= 0 else torch.ones((), device=self.device)
            x = after.sqrt() * clean + (1 - after).sqrt() * noise
        pixels = (x.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(0, 2, 3, 4, 1)
        return list(pixels.cpu().numpy())


def train(diffusion: Diffusion, data: Dataset, minutes: float, batch_size: int) -> tuple[int, float]:
    """Train for so many minutes; returns the steps and the median seconds of one."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(diffusion.network.parameters(), lr=LEARNING_RATE)
    rng, seconds, began = np.random.default_rng(0), list[float](), time.perf_counter()
    while time.perf_counter() - began < 60 * minutes:
        step_began = time.perf_counter()
        clips = np.stack([data.video(index) for index in rng.integers(len(data), size=batch_size)])
        video = torch.from_numpy(clips).to(diffusion.device).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
        loss = diffusion.loss(video)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - step_began)
    return len(seconds), float(np.median(seconds))


def seconds_of_a_step(run: Path) -> float | None:
    """Return the mean seconds of a step of a run's last stage between its first and last line in the log."""
    lines = [line for line in read_metrics(run) if "seconds" in line]
    last = [line for line in lines if line["stage"] == lines[-1]["stage"]]
    steps = last[-1]["step"] - last[0]["step"]
    return (last[-1]["seconds"] - last[0]["seconds"]) / steps if steps > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path, help="run directory of latent-video-dit")
    parser.add_argument("--minutes", type=float, required=True, help="of training the rival: as many as RUN had")
    parser.add_argument("--count", type=int, default=256, help="clips on either side of a distance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=WIDTH, help="channels at full size, a multiple of 8")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sheet", type=Path, help="PNG: real clips, RUN's and the rival's, a clip per row")
    arguments = parser.parse_args()
    device, data = torch.device(arguments.device), Dataset(arguments.data, "train")
    description = read_description(arguments.run)
    source = open_source(str(arguments.run), arguments.device, arguments.data)
    network = PixelUNet(data.shape, arguments.width).to(device)
    diffusion = Diffusion(network, data.shape, device)
    steps, seconds = train(diffusion, data, arguments.minutes, int(description.training["batch_size"]))
    rival = Source("pixel diffusion", data.shape, data.info.fps, PIXELS, None, diffusion.sample)
    features, question = open_features(PACKAGED, device), Question(min(arguments.count, len(data)), arguments.seed, "train", 20)
    found = {}
    for name, one in {"latent": source, "pixels": rival}.items():
        card = judge(one, arguments.data, features, question, store_folder=store_folder(data), shown=SHOWN)
        score = card.report["scores"][features.name_of("frechet")]
        found[name] = {key: round(score[key], 4) for key in ("value", "low", "high")}
        found[name] |= {"motion against real": round(card.report["motion"]["motion against real"], 3)}
        found["floor"] = round(score["floor"]["mean"], 4)
        found[f"{name} clips"], found["real clips"] = card.judged, card.real
    shown = [found.pop(name) for name in ("real clips", "latent clips", "pixels clips")]
    latent_seconds = seconds_of_a_step(arguments.run)
    lines = [line for line in read_metrics(arguments.run) if "seconds" in line]
    report = {
        "benchmark": "pixel_diffusion",
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "clips": f"{len(data)} of {data.shape}",
        "judged clips": question.count,
        "frechet": found,
        "minutes": {"latent": round(lines[-1]["seconds"] / 60, 2), "pixels": arguments.minutes},
        "steps": {"latent": lines[-1]["step"], "pixels": steps},
        "batch size": int(description.training["batch_size"]),
        "parameters": {"latent": description.weights, "pixels": sum(p.numel() for p in network.parameters())},
        "step seconds": {"latent": latent_seconds and round(latent_seconds, 4), "pixels": round(seconds, 4)},
        "step time ratio": latent_seconds and round(seconds / latent_seconds, 2),
        "sampling": {"latent": source.about["sampling"], "pixels": {"sampler": "ddim", "steps": SAMPLING_STEPS}},
        "latent is asked for": source.about["asked for"],
    }
    print(json.dumps(report))
    if arguments.sheet:
        write_image(arguments.sheet, contact_sheet([clip for clips in shown for clip in clips], frames=8))


if __name__ == "__main__":
    main()
