"""Write a checkpoint in half precision, to share it: half the bytes, clips that differ by less than a level of 256 or so.

python examples/halve_a_checkpoint.py runs/mine mine.safetensors

What comes with kinema (src/kinema/zoo) was written this way.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from kinema.training.checkpoint import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Options:
    """What to read and what to write."""

    run: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]


def main(options: Options) -> None:
    checkpoint = load_checkpoint(options.run)
    about = checkpoint.metadata
    dataset = {name: value for name, value in about.dataset.items() if name != "path"}  # of a private machine
    command = [Path(word).name if "/" in word else word for word in about.provenance.get("command", ())]
    save_checkpoint(
        options.out,
        checkpoint.system,
        stage=about.stage,
        steps=about.steps,
        dataset=dataset,
        provenance={**about.provenance, "command": command},
        dtype=torch.float16,
    )
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(Options))
