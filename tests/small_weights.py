"""Files as others publish weights, with random numbers or with tiny programs in place of networks."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def write_state(path: Path, network: nn.Module, *, legacy: bool = False) -> Path:
    """Write the tensors of a network; as PyTorch 0.3 wrote them, `legacy` files lack the counters of batch normalisation."""
    state = dict(network.state_dict())
    if legacy:
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def randomise(network: nn.Module) -> nn.Module:
    """Give a network random weights that keep the size of what passes, and unlike statistics to its normalisations."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                size = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / size) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                for tensor, least in ((module.weight, 0.5), (module.bias, -0.2), (module.running_mean, -0.1)):
                    tensor.copy_(least + torch.rand(tensor.shape, generator=generator) * 0.5)
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return network.eval()


class Clip400(nn.Module):
    """Stands for i3d_torchscript.pt: 400 numbers of a clip of 0 to 255, whose options must be those of the protocol."""

    def forward(self, video: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        pixels = video * 2 / 255 - 1 if rescale else video
        pooled = nn.functional.adaptive_avg_pool3d(pixels, [4, 10, 10])[:, 0].flatten(1)
        return pooled if resize and return_features else pooled[:, :3]


class Frame2048(nn.Module):
    """Stands for inception-2015-12-05.pt: 2,048 numbers of a picture of 0 to 255."""

    def forward(self, picture: Tensor, return_features: bool = False) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(picture.float(), [32, 64])[:, 0].flatten(1)
        return pooled if return_features else pooled[:, :3]


class TensorFlowUnits(nn.Module):
    """Stands for default_1.pt: the units of a network in order, with the names of TensorFlow, in a program nobody need run."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for place, unit in enumerate(module for module in network.modules() if hasattr(module, "bn")):
            part = nn.Module()
            for name, tensor in (
                ("weight", unit.conv.weight),
                ("beta", unit.bn.bias),
                ("mean", unit.bn.running_mean),
                ("var", unit.bn.running_var),
            ):
                part.register_buffer(name, tensor.detach())
            self.add_module(f"conv_{place}", part)

    def forward(self, picture: Tensor) -> Tensor:
        return picture


class Narrow(nn.Module):
    """A program with the right options that is another network."""

    def forward(self, video: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        return video.flatten(1)[:, :7]


def write_program(path: Path, network: Callable[[], nn.Module]) -> Path:
    """Write a network as a TorchScript program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        content = io.BytesIO()
        torch.jit.save(torch.jit.script(network()), content)
    path.write_bytes(content.getvalue())
    return path
