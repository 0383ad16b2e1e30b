"""Finds a model inside its wrappers, and the names that its tensors have there."""

from __future__ import annotations

import torch

from patchc.errors import UnsupportedInputError
from patchc.torch.tensors import unwrapped_name

_REGISTERED = ("_orig_mod", "_checkpoint_wrapped_module")
"""Where torch.compile and activation checkpointing keep the module that they wrap."""


def inside(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside all its wrappers."""
    while attribute := _wrapped(model):
        model = model.get_submodule(attribute)
    return model


def inside_names(model: torch.nn.Module) -> dict[str, str]:
    """A model's parameters and persistent buffers, as they are named inside all wrappers.

    Keys are the names that :func:`patchc.torch.tensors.named_tensors` gives; several of them may
    be one tensor.

    Raises:
        UnsupportedInputError: parameters are flattened, by FullyShardedDataParallel; names them.
    """
    wrapped = set()
    temporary = set()
    for path, module in model.named_modules(remove_duplicate=False):
        within = f"{path}." if path else ""
        if type(module).__name__ == "FullyShardedDataParallel":
            raise UnsupportedInputError(
                f"the parameters of {path or 'the model'!r} are flattened and sharded by "
                "FullyShardedDataParallel; patch the folder with patchc.apply and load it again"
            )
        if attribute := _wrapped(module):
            wrapped.add(within + attribute)
        temporary |= {within + name for name in module._non_persistent_buffers_set}
    named = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    named += [n for n, _ in model.named_buffers(remove_duplicate=False) if n not in temporary]
    return {unwrapped_name(name): _without(name, wrapped) for name in named}


def _wrapped(module: torch.nn.Module) -> str | None:
    """The attribute of a wrapper that is the wrapped module; None if a module is no wrapper."""
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return "module"
    return next((name for name in _REGISTERED if name in module._modules), None)


def _without(name: str, wrapped: set[str]) -> str:
    """A name without those attributes of its path that wrappers added."""
    parts = name.split(".")
    paths = (".".join(parts[: at + 1]) for at in range(len(parts)))
    return ".".join(part for part, path in zip(parts, paths, strict=True) if path not in wrapped)
