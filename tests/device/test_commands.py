"""Commands of which the system lies on another device: to train, to go on, to make, to judge."""

from pathlib import Path

import pytest

from device.pretended_device import pretended_device
from kinema.cli import main, trained
from kinema.training import distributed
from small_dataset import write_dataset

TRAIN = "train {system} {data} --out {run} --preset tiny --precision bf16"
PAIRED = "evaluate {run} --against {data} --paired --count 8 --perceptual none --out {out}/card"
COMMANDS = {
    "vgan": [
        "generate {run} --count 3 --streams --out {out}/made.webp",
        "interpolate {run} --from 0 --to 1 --out {out}/between",
        "evaluate {run} --against {data} --count 32 --features small_features:Colours --replicates 2 --out {out}/card",
    ],
    "vgan-autoencoder": ["reconstruct {run} {data} --count 3 --out {out}/again", PAIRED],
    "latent-video-dit": [
        "generate {run} --count 3 --guidance 2 --label walk --out {out}/made",
        "evaluate {run} --against {data} --complete --tasks extend box --count 8 --out {out}/card",
    ],
    "dance": [PAIRED],
    "pose-knows": [
        "predict {run} {data} --count 1 --futures 8 --modes 2 --out {out}/futures",
        "evaluate {run} --against {data} --forecast --count 8 --samples 3 --out {out}/card",
    ],
}
SHAPES = {"dance": (2, 32, 32), "pose-knows": (9, 16, 16)}


@pytest.mark.slow
@pytest.mark.parametrize("system", COMMANDS)
def test_commands_work_where_the_system_is_on_another_device(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", 48, shape=SHAPES.get(system, (8, 16, 16)), test_every=4, people=True)
    places = {"system": system, "data": data, "run": tmp_path / "run", "out": tmp_path}
    more = 24 if system == "dance" else 8  # an eighth of its steps are for faces
    with pretended_device() as device:
        for module in (distributed, trained):
            monkeypatch.setattr(module, "choose_device", lambda *_: device)
        for command in (f"{TRAIN} --steps 4", f"{TRAIN} --steps {more} --resume", *COMMANDS[system]):
            assert main(command.format(**places).split()) == 0, (command, capsys.readouterr().err[-2000:])
