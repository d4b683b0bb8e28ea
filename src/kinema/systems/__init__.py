"""One file per paper, and the table of all systems."""

from typing import Any

from kinema.core.system import System
from kinema.systems.dance import Dance
from kinema.systems.ddpm import DDPM
from kinema.systems.fake_detector import FakeDetector
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.systems.pose_knows import PoseKnows
from kinema.systems.vgan import VGAN, FutureVGAN, VGANAutoencoder
from kinema.systems.vgan_recogniser import VGANRecogniser

SYSTEMS: dict[str, type[System[Any]]] = {
    "vgan": VGAN,
    "vgan-future": FutureVGAN,
    "vgan-autoencoder": VGANAutoencoder,
    "vgan-recogniser": VGANRecogniser,
    "dance": Dance,
    "fake-detector": FakeDetector,
    "ddpm": DDPM,
    "latent-video-dit": LatentVideoDiT,
    "pose-knows": PoseKnows,
}
