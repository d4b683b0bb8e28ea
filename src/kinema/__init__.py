"""kinema: deep generative video on your own footage.

`load` and `SYSTEMS` are imported when they are first used, so that ``import kinema`` does not wait for torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinema.systems import SYSTEMS
    from kinema.training.checkpoint import load

__version__ = "0.1.0"
__all__ = ["SYSTEMS", "__version__", "load"]


def __getattr__(name: str) -> object:
    if name == "SYSTEMS":
        from kinema.systems import SYSTEMS

        return SYSTEMS
    if name == "load":
        from kinema.training.checkpoint import load

        return load
    raise AttributeError(f"module 'kinema' has no attribute {name!r}")
