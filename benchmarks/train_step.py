"""Speed of a training step: kinema against the plain loop, in one run.

Two-stream VGAN, preset `paper`, clips of 32x64x64. The reference is the loop of the usual ports: fp32, contiguous tensors,
unfused Adam, gradients for everything, repeated masks. Both sides run in processes of their own and are timed in turns
(A B A B ...), so that other load on the machine falls on both; the medians are compared, of time on the clock and of processor
time (which other load disturbs less). `--gains` switches on, alone in the plain loop, what kinema does differently.

    python benchmarks/train_step.py                  # batch 8 on two CPU threads; batch 64 on a GPU
    python benchmarks/train_step.py --gains --rounds 3

Prints one JSON line. Target: ratio at least 2.2 on two CPU cores.
"""

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clock import matmul_tflops, timed
from kinema.core.types import Batch
from kinema.systems.vgan import VGAN
from kinema.training import TrainConfig, Trainer
from kinema.training.memory import keep_freed_memory

GAINS = ("bf16", "channels_last", "kept_memory", "frozen", "broadcast", "fused_adam", "shared_fakes", "compile")
GIGAFLOP = 42.6
"""Per sample and training step: 3 generator and 7 discriminator forward units, 21.3 GMAC."""


class PlainGenerator(nn.Module):
    """The two-stream generator, layer by layer from the paper's table."""

    def __init__(self, broadcast: bool) -> None:
        super().__init__()
        self.broadcast = broadcast
        self.trunk = nn.Sequential(
            nn.ConvTranspose3d(100, 512, (2, 4, 4)), nn.BatchNorm3d(512), nn.ReLU(True),
            nn.ConvTranspose3d(512, 256, 4, 2, 1), nn.BatchNorm3d(256), nn.ReLU(True),
            nn.ConvTranspose3d(256, 128, 4, 2, 1), nn.BatchNorm3d(128), nn.ReLU(True),
            nn.ConvTranspose3d(128, 64, 4, 2, 1), nn.BatchNorm3d(64), nn.ReLU(True),
        )  # fmt: skip
        self.foreground = nn.Sequential(nn.ConvTranspose3d(64, 3, 4, 2, 1), nn.Tanh())
        self.mask = nn.Sequential(nn.ConvTranspose3d(64, 1, 4, 2, 1), nn.Sigmoid())
        self.background = nn.Sequential(
            nn.ConvTranspose2d(100, 512, 4), nn.BatchNorm2d(512), nn.ReLU(True),
            nn.ConvTranspose2d(512, 256, 4, 2, 1), nn.BatchNorm2d(256), nn.ReLU(True),
            nn.ConvTranspose2d(256, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.ReLU(True),
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(True),
            nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return video and mask."""
        features = self.trunk(code[:, :, None, None, None])
        foreground, mask = self.foreground(features), self.mask(features)
        background = self.background(code[:, :, None, None])[:, :, None]
        if self.broadcast:
            return background + mask * (foreground - background), mask
        full = mask.repeat(1, 3, 1, 1, 1)
        return full * foreground + (1 - full) * background.repeat(1, 1, foreground.shape[2], 1, 1), mask


def plain_discriminator() -> nn.Module:
    """Return the discriminator with one logit."""
    return nn.Sequential(
        nn.Conv3d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2, True),
        nn.Conv3d(64, 128, 4, 2, 1), nn.BatchNorm3d(128, 1e-3), nn.LeakyReLU(0.2, True),
        nn.Conv3d(128, 256, 4, 2, 1), nn.BatchNorm3d(256, 1e-3), nn.LeakyReLU(0.2, True),
        nn.Conv3d(256, 512, 4, 2, 1), nn.BatchNorm3d(512, 1e-3), nn.LeakyReLU(0.2, True),
        nn.Conv3d(512, 1, (2, 4, 4)), nn.Flatten(0),
    )  # fmt: skip


class PlainLoop:
    """D step, then G step, as in the usual ports; each gain is a switch that is off."""

    def __init__(self, device: torch.device, gains: frozenset[str] = frozenset()) -> None:
        self.device, self.gains = device, gains
        if "kept_memory" in gains:
            keep_freed_memory()
        self.generator = PlainGenerator("broadcast" in gains).to(device)
        self.discriminator = plain_discriminator().to(device)
        if "channels_last" in gains:
            for parameter in (*self.generator.parameters(), *self.discriminator.parameters()):
                layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.dim())
                if layout is not None:
                    parameter.data = parameter.data.contiguous(memory_format=layout)
        if "compile" in gains:
            self.generator.compile()
            self.discriminator.compile()
        fused = "fused_adam" in gains
        foreach = None if fused else False
        self.generator_adam, self.discriminator_adam = (
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999), fused=fused, foreach=foreach)
            for network in (self.generator, self.discriminator)
        )

    def precision(self) -> torch.autocast:
        """Return the arithmetic of the networks."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled="bf16" in self.gains)

    def __call__(self, real: Tensor) -> float:
        """Step both networks."""
        layout = torch.channels_last_3d if "channels_last" in self.gains else torch.contiguous_format
        real = real.contiguous(memory_format=layout)
        ones, zeros = torch.ones(len(real), device=self.device), torch.zeros(len(real), device=self.device)
        shared = "shared_fakes" in self.gains
        with self.precision():
            with torch.set_grad_enabled(shared):
                fake, mask = self.generator(torch.randn(len(real), 100, device=self.device))
            on_real = binary_cross_entropy_with_logits(self.discriminator(real).float(), ones)
            on_fake = binary_cross_entropy_with_logits(self.discriminator(fake.detach()).float(), zeros)
            judged = (on_real + on_fake) / 2
        self.discriminator_adam.zero_grad()
        judged.backward()
        self.discriminator_adam.step()
        self.discriminator.requires_grad_("frozen" not in self.gains)
        with self.precision():
            if not shared:
                fake, mask = self.generator(torch.randn(len(real), 100, device=self.device))
            convinced = binary_cross_entropy_with_logits(self.discriminator(fake).float(), ones) + 0.1 * mask.float().mean()
        self.generator_adam.zero_grad()
        convinced.backward()
        self.generator_adam.step()
        self.discriminator.requires_grad_(True)
        return float((judged + convinced).detach())


def kinema_loop(device: torch.device, compiled: bool) -> Callable[[Tensor], object]:
    """Return one step of kinema's trainer with its defaults."""
    trainer = Trainer(VGAN(VGAN.presets["paper"].config), "adversarial", TrainConfig(compile=compiled), device)
    return lambda real: trainer.step(Batch(real))


def build(name: str, device: torch.device) -> Callable[[Tensor], object]:
    """Return the step of a side: ``plain``, ``plain+GAIN``, ``kinema`` or ``kinema+compile``."""
    kind, *gains = name.split("+")
    if kind == "plain":
        return PlainLoop(device, frozenset(gains))
    return kinema_loop(device, "compile" in gains)


def serve(pipe: Connection, name: str, arguments: argparse.Namespace) -> None:
    """Step whenever asked to, and answer with the seconds it took."""
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    # As the loader gives it: frames in memory order T H W C.
    real = (torch.rand(arguments.batch, 32, 64, 64, 3) * 2 - 1).permute(0, 4, 1, 2, 3).to(device)
    loop = build(name, device)
    while pipe.recv():
        pipe.send(timed(lambda: loop(real), device))


def measure(names: list[str], arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Return the median seconds, on the clock and of processors, of a step of each side; each has its own process."""
    context = multiprocessing.get_context("spawn")
    pipes = {name: context.Pipe() for name in names}
    for name, (_, far) in pipes.items():
        context.Process(target=serve, args=(far, name, arguments), daemon=True).start()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(arguments.warmup + arguments.rounds):
        for name, (near, _) in pipes.items():
            near.send(True)
            taken = near.recv()
            if turn >= arguments.warmup:
                seconds[name].append(taken)
    for near, _ in pipes.values():
        near.send(False)
    return {
        name: (statistics.median(wall for wall, _ in values), statistics.median(busy for _, busy in values))
        for name, values in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="default: 8 on a CPU, 64 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=4, help="rounds that are not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--gains", action="store_true", help="also time every gain alone in the plain loop, and kinema compiled"
    )
    arguments = parser.parse_args()
    on_gpu = arguments.device.startswith("cuda")
    arguments.batch = arguments.batch or (64 if on_gpu else 8)
    load = os.getloadavg()[0]
    seconds = measure(["plain", "kinema"], arguments)
    (plain, plain_busy), (ours, ours_busy) = seconds["plain"], seconds["kinema"]
    clips = arguments.batch / ours
    report: dict[str, object] = {
        "benchmark": "train_step",
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {arguments.threads} threads",
        "load_before": round(load, 2),
        "batch": arguments.batch,
        "ratio": round(plain / ours, 2),
        "ratio_of_processor_time": round(plain_busy / ours_busy, 2),
        "target": 2.2,
        "clips_per_second": round(clips, 1),
        "seconds": {"plain": round(plain, 4), "kinema": round(ours, 4)},
    }
    if on_gpu:
        ceiling = matmul_tflops(torch.device(arguments.device))
        report |= {"matmul_tflops": round(ceiling), "share_of_matmul": round(clips * GIGAFLOP / 1000 / ceiling, 3)}
    if arguments.gains:
        against_plain = {}
        for side in (*(f"plain+{gain}" for gain in GAINS), "plain+bf16+channels_last", "kinema+compile"):
            pair = measure(["plain", side], arguments)
            against_plain[side] = [round(a / b, 2) for a, b in zip(pair["plain"], pair[side], strict=True)]
        report["gains_wall_and_processor"] = against_plain
    print(json.dumps(report))


if __name__ == "__main__":
    main()
