"""Finds a model inside its wrappers, and the names that its tensors have there."""

from __future__ import annotations

import torch

from patchc.errors import UnsupportedInputError
from patchc.torch.tensors import unwrapped_name

_REGISTERED = ("_orig_mod", "_checkpoint_wrapped_module")
"""Where torch.compile and activation checkpointing keep the module that they wrap."""

_PEFT = {"PeftModel": "base_model", "BaseTuner": "model", "BaseTunerLayer": "base_layer"}
"""Where classes of PEFT keep it; what else they have is their adapters'."""


def inside(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside all its wrappers."""
    while attribute := _wrapped(model):
        model = model.get_submodule(attribute)
    return model


def inside_names(model: torch.nn.Module) -> dict[str, str | None]:
    """A model's parameters and persistent buffers, as they are named inside all wrappers.

    Keys are the names that :func:`patchc.torch.tensors.named_tensors` gives; several of them may
    be one tensor. The parameters of adapters around a layer have no name inside.

    Raises:
        UnsupportedInputError: parameters are flattened, by FullyShardedDataParallel, or have a copy
            that is trained in their place, by PEFT; names the module.
    """
    wrapped = set()
    temporary = set()
    adapted = set()
    for path, module in model.named_modules(remove_duplicate=False):
        within = f"{path}." if path else ""
        if type(module).__name__ == "FullyShardedDataParallel":
            raise UnsupportedInputError(
                f"the parameters of {path or 'the model'!r} are flattened and sharded by "
                "FullyShardedDataParallel; patch the folder with patchc.apply and load it again"
            )
        if "AuxiliaryTrainingWrapper" in _peft_classes(module):
            raise UnsupportedInputError(
                f"{path!r} has weights of its adapter in place of the model's "
                "(modules_to_save or trainable tokens); patch the model without the adapter"
            )
        if attribute := _wrapped(module):
            wrapped.add(within + attribute)
            if _peft_classes(module):
                adapted.add(path)
        temporary |= {within + name for name in module._non_persistent_buffers_set}
    named = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    named += [n for n, _ in model.named_buffers(remove_duplicate=False) if n not in temporary]
    return {
        unwrapped_name(name): None
        if _is_adapters(name, adapted, wrapped)
        else _without(name, wrapped)
        for name in named
    }


def _wrapped(module: torch.nn.Module) -> str | None:
    """The attribute of a wrapper that is the wrapped module; None if a module is no wrapper."""
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return "module"
    own = [*_REGISTERED, *(_PEFT[kind] for kind in _peft_classes(module) if kind in _PEFT)]
    return next((name for name in own if name in module._modules), None)


def _peft_classes(module: torch.nn.Module) -> list[str]:
    """The names of a module's classes that are PEFT's."""
    kinds = type(module).__mro__
    return [kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] == "peft"]


def _is_adapters(name: str, adapted: set[str], wrapped: set[str]) -> bool:
    """Whether the innermost adapter that a parameter is in has it beside the layer it wraps."""
    paths = _paths(name)
    inner = max((at for at, path in enumerate(paths) if path in adapted), default=None)
    return inner is not None and paths[inner + 1] not in wrapped


def _without(name: str, wrapped: set[str]) -> str:
    """A name without those attributes of its path that wrappers added."""
    kept = zip(name.split("."), _paths(name)[1:], strict=True)
    return ".".join(part for part, path in kept if path not in wrapped)


def _paths(name: str) -> list[str]:
    """The beginnings of a name: nothing, its first part, its first two, …"""
    parts = name.split(".")
    return [".".join(parts[:at]) for at in range(len(parts) + 1)]
