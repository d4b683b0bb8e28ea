"""Training: the one loop, processes that train together, checkpoints."""

from kinema.training.checkpoint import Checkpoint, load, load_checkpoint, save_checkpoint
from kinema.training.trainer import TrainConfig, Trainer, run_fit

__all__ = ["Checkpoint", "TrainConfig", "Trainer", "load", "load_checkpoint", "run_fit", "save_checkpoint"]
