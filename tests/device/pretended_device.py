"""A second device where there is one: its tensors lie in the processor's memory, and refuse to meet any that were left there.

What runs on it takes the paths that are not the processor's own, and fails where a tensor was forgotten, as on a GPU. It
computes what the processor computes, so that numbers can be compared. Autocast has the operations that CUDA's has.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard  # pyright: ignore[reportPrivateUsage]
from torch.library import Library, fallthrough_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,  # pyright: ignore[reportPrivateUsage]
    _setup_privateuseone_for_python_backend,  # pyright: ignore[reportPrivateUsage]
)

NAME = "pretended"
aten = torch.ops.aten
# What torch lets tensors of two devices do with one another: copies, and indices that lie on the processor.
CROSSING = {
    *(aten._to_copy.default, aten.copy_.default),
    *(aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default),
}
_registered: list[Library] = []  # torch forgets what a library registered when it is collected


class Pretended(Tensor):
    """A tensor of the device around one of the processor.

    What torch answers from a tensor's own storage, which this one does not have, is asked of the other's.
    """

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> "Pretended":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.raw})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.raw.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Pretended":
        if id(self) not in memo:
            twin = Pretended(self.raw.clone())
            twin.requires_grad_(self.requires_grad)
            twin._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = twin
        return memo[id(self)]

    @property
    def data(self) -> "Tensor":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.detach()

    @data.setter
    def data(self, value: "Pretended") -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.raw = value.raw

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.raw.untyped_storage()

    def tolist(self) -> Any:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Compute on the processor what is asked of the device.

    Raises:
        RuntimeError: when a tensor of the device meets one of the processor, of more than one number.
    """
    if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"):
        return function.decompose(*args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    forgotten = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim()]
    if here and forgotten and function not in CROSSING:
        raise RuntimeError(f"{function}: a tensor of {tuple(forgotten[0].shape)} was left on the processor")
    wanted = kwargs.get("device")
    stays = bool(here) if wanted is None else torch.device(wanted).type == NAME
    if function is aten.copy_.default:
        stays = isinstance(args[0], Pretended)
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():  # a wrapper cannot be an inference tensor
            return run(function, args, kwargs)
    plain_args, plain = tree_map_only(Pretended, lambda tensor: tensor.raw, (tuple(args), dict(kwargs)))
    if wanted is not None:
        plain["device"] = torch.device("cpu")
    made = function(*plain_args, **plain)
    known = {id(tensor.raw): tensor for tensor in here}
    if function is aten._to_copy.default and id(made) in known:
        made = made.clone()  # to another device is never the same memory

    def wrapped(tensor: Tensor) -> Tensor:
        if id(tensor) in known:
            return known[id(tensor)]
        return Pretended(tensor) if stays else tensor

    return tree_map_only(Tensor, wrapped, made)


class Factories(TorchDispatchMode):
    """Within this mode tensors can be made on the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = kwargs.get("device")
        ours = any(issubclass(kind, Pretended) for kind in types)
        if ours or (wanted is not None and torch.device(wanted).type == NAME):
            return run(function, args, kwargs)
        return function(*args, **kwargs)


@contextlib.contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Yield the device, for as long as the context lasts."""
    with Factories():
        yield torch.device(NAME, 0)


# --- What torch wants of a device ---------------------------------------------------------------------------------------------


class Backend(_DummyBackendModule):
    """Stands for `torch.cuda`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    kernels = Library("aten", "IMPL")
    kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    kernels.impl("empty.memory_format", _empty, "PrivateUse1")
    kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    kernels.impl("_thnn_fused_lstm_cell", _lstm_cell, "AutogradPrivateUse1")
    _register_casts(kernels)
    others = Library("_", "IMPL")
    others.fallback(fallthrough_kernel, "AutocastPrivateUse1")
    _registered.extend((kernels, others))


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **_: object) -> Tensor:
    return Pretended(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size: Any, dtype: Any = None, memory_format: Any = None, **_: object) -> Tensor:
    return Pretended(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    plain = [tensor.raw if isinstance(tensor, Pretended) else tensor for tensor in (source, target)]
    plain[1].copy_(plain[0])
    return target


def _lstm_cell(
    of_input: Tensor, of_hidden: Tensor, cell: Tensor, input_bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Every device but the processor has this cell as one kernel."""
    gates = of_input + of_hidden
    for bias in (input_bias, hidden_bias):
        gates = gates if bias is None else gates + bias
    enter, forget, new, leave = gates.chunk(4, dim=1)
    after = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * after.tanh(), after, gates


# --- Autocast -----------------------------------------------------------------------------------------------------------------

# The lists of CUDA, https://docs.pytorch.org/docs/stable/amp.html, as far as they are operations of aten.
IN_BF16 = """
addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
conv_transpose3d convolution linear lstm_cell matmul mm mv prelu scaled_dot_product_attention einsum linalg_vecdot
linalg_multi_dot
"""
IN_FP32 = """
acos asin binary_cross_entropy_with_logits cdist cosh cosine_embedding_loss cosine_similarity cross_entropy_loss cumprod
cumsum dist erfinv exp expm1 frobenius_norm group_norm hinge_embedding_loss huber_loss kl_div l1_loss layer_norm log
log10 log1p log2 log_softmax logsumexp margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss
nll_loss2d norm nuclear_norm pdist poisson_nll_loss pow prod reciprocal renorm rsqrt sinh smooth_l1_loss
soft_margin_loss softmax softplus sum tan triplet_margin_loss upsample_bicubic2d upsample_bilinear2d upsample_linear1d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
IN_THE_WIDEST = "addcdiv addcmul atan2 bilinear cat cross dot grid_sampler index_put scatter_add stack tensordot vdot"


def _register_casts(kernels: Library) -> None:
    for names, kind in ((IN_BF16, torch.bfloat16), (IN_FP32, torch.float32), (IN_THE_WIDEST, None)):
        for name in names.split():
            packet = getattr(aten, name)
            for overload in packet.overloads():
                if "out" not in overload:
                    full = name if overload == "default" else f"{name}.{overload}"
                    kernels.impl(full, _casting(getattr(packet, overload), kind), "AutocastPrivateUse1")


def _casting(operation: Any, kind: torch.dtype | None) -> Callable[..., Any]:
    """Return the operation on floats of a kind; of the widest among them without one."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        found = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.is_floating_point()}
        wanted = kind or (torch.float32 if torch.float32 in found else torch.bfloat16)

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(wanted) if tensor.dtype in (torch.float32, torch.bfloat16) else tensor

        with _ExcludeDispatchKeyGuard(DispatchKeySet(DispatchKey.AutocastPrivateUse1)):
            args, kwargs = tree_map_only(Tensor, cast, (args, kwargs))
            return operation(*args, **kwargs)

    return kernel


_register()  # on import, for autograd counts the devices once: when the first gradient of the process is taken
