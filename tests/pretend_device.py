"""A second device, pretended on the CPU, to find tensors that do not follow their inputs where there is no GPU.

Inside `pretend_device`, tensors that are moved to or made on ``PRETENDED`` compute as usual. Like those of a GPU, they
refuse to meet tensors of the CPU, except scalars and indices, and to become NumPy arrays.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from diffclip_dist.feature_extraction.one_thread import one_thread

PRETENDED: Final = torch.device("meta")
_ACROSS: Final = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put", "aten::index_put_")


class _There(torch.Tensor):
    """A tensor of the pretended device; the CPU holds its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls: type["_There"], here: torch.Tensor) -> "_There":
        made: _There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.size(), here.stride(), here.storage_offset(), dtype=here.dtype, device=PRETENDED
        )
        made.here = here
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"there: {self.here!r}"

    def tolist(self) -> Any:
        return self.here.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


def _compute(operation: Any, args: Any, kwargs: Any) -> Any:
    given, _ = tree_flatten((args, kwargs))
    tensors = [value for value in given if isinstance(value, torch.Tensor)]
    there = any(isinstance(value, _There) for value in tensors)
    asked = kwargs.get("device")
    if not there and (asked is None or torch.device(asked) != PRETENDED):
        return operation(*args, **kwargs)
    if there and operation._schema.name not in _ACROSS:
        stray = [value for value in tensors if not isinstance(value, _There) and value.dim()]
        if stray:
            raise RuntimeError(
                f"{operation}: expected all tensors on one device, found one of the CPU: {stray[0].shape}"
            )
    found = operation(*(tree_map(_plain, args)), **tree_map(_plain, kwargs))
    if asked is not None and torch.device(asked).type == "cpu":
        return found
    if operation._schema.name == "aten::copy_" and not isinstance(args[0], _There):
        return args[0]
    wrapped = tree_map(lambda value: _There(value) if isinstance(value, torch.Tensor) else value, found)
    return return_and_correct_aliasing(operation, args, kwargs, wrapped)


def _plain(value: Any) -> Any:
    if isinstance(value, _There):
        return value.here
    return torch.device("cpu") if isinstance(value, torch.device) and value == PRETENDED else value


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, while it is pretended, by one thread: a mode holds in the thread that enters it."""
    with one_thread(), _Pretending():
        yield PRETENDED
