"""One file per paper, and the table of all systems."""

from typing import Any

from kinema.core.system import System
from kinema.systems.vgan import VGAN, FutureVGAN, VGANAutoencoder

SYSTEMS: dict[str, type[System[Any]]] = {
    "vgan": VGAN,
    "vgan-future": FutureVGAN,
    "vgan-autoencoder": VGANAutoencoder,
}
