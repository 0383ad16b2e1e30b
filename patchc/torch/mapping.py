"""Finds what the parameters of a loaded model hold of its checkpoint."""

from __future__ import annotations

import os

import torch

from patchc.errors import UsageError
from patchc.formats import open_patch
from patchc.torch.converted_names import checkpoint_slices, is_transformers_model
from patchc.torch.fused_names import engine_slices, is_engine_model
from patchc.torch.slices import Slice
from patchc.torch.tensors import named_tensors
from patchc.torch.wrapped_names import inside, inside_names


def mapping_for(
    model: torch.nn.Module, *, patch: str | os.PathLike[str] | None = None
) -> dict[str, list[Slice]]:
    """What the parameters of a loaded model hold of its checkpoint, for ``mapping=``.

    It knows models of transformers 5, in the layout that ``save_pretrained`` writes, which is the
    one they were loaded from, and models of vLLM, by what their classes and layers declare.
    Parameters of other models have the names that they have. Around a model or parts of it there
    may be ``DataParallel``, ``DistributedDataParallel``, ``torch.compile``, activation
    checkpointing and adapters of PEFT, whose own parameters hold nothing of the base.

    Only names, shapes, dtypes and the configuration are read, so the model may be on device meta.
    Whether the model holds what its names say, the digests tell when a patch is prepared.

    Args:
        model: the module that is to be patched, with its wrappers.
        patch: the patch file that the mapping is for. Where a model can be loaded from several
            layouts, the one of its base is taken: with or without the base model's prefix in
            transformers, or before any renaming that vLLM undoes.

    Returns:
        Parameter → slices in the order of its rows, for those that do not simply hold the base
        tensor of their name. Parameters of ``torch.compile`` go by the names inside.

    Raises:
        UnsupportedInputError: parameters hold more or less than whole rows of the checkpoint's
            tensors, such as columns, shards of tensor parallelism, or codes; names them.
        UsageError: the model is no module.
        PatchFormatError: ``patch`` cannot be read.
    """
    if not isinstance(model, torch.nn.Module):
        raise UsageError(
            f"the model is a {type(model).__name__}; mapping_for takes a module, whose class and "
            "configuration say how it is loaded"
        )
    names = inside_names(model)
    named, _ = named_tensors(model)
    tensors = {within: named[name] for name, within in names.items() if within is not None}
    known = _names(patch) if patch is not None else None
    inner = inside(model)
    if is_engine_model(inner):
        held = engine_slices(inner, tensors, known)
    elif is_transformers_model(inner):
        held = checkpoint_slices(inner, tensors, known)
    else:
        held = {within: [Slice(within)] for within in tensors}
    mapping = {n: [] if within is None else held[within] for n, within in names.items()}
    return {name: slices for name, slices in mapping.items() if slices != [Slice(name)]}


def _names(patch: str | os.PathLike[str]) -> frozenset[str]:
    """The names of the tensors of a patch's base."""
    with open_patch(patch) as opened:
        return frozenset(opened.index.tensors)
