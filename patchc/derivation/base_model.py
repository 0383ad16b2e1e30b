"""Loads the base in transformers, and finds the parameter that each stored tensor became."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.chat_template import check_chat_template
from patchc.errors import DeriveError, UnsupportedInputError
from patchc.layered.from_folder import load_config, load_tokenizer_files
from patchc.layered.sources import BaseSource, read_whole


def load_tokenizer(base: Path) -> Any:
    """Load the base's tokenizer, which has a chat template.

    Raises:
        DeriveError: there is no readable tokenizer, or it has no chat template.
        UnsupportedInputError: there is no readable config.
    """
    config = load_config(base)
    try:
        tokenizer = load_tokenizer_files(base, config)
    except UnsupportedInputError as error:
        raise DeriveError(
            f"{error}; copy the tokenizer's files from the model that the weights are of"
        ) from error
    check_chat_template(tokenizer, base)
    return tokenizer


def name_tensors(model: Any, base: Checkpoint) -> dict[str, Tensor]:
    """Map the base's tensor names to the model's tensors, in the base's order.

    Names that the loaded model does not use are left out. Tied tensors appear under the names that
    the base stores.

    Raises:
        UnsupportedInputError: the model has a parameter that the base does not store with the same
            shape and values under the same name (transformers may fuse, rename or convert tensors
            as it loads).
    """
    loaded = dict(model.state_dict(keep_vars=True))
    named = {name: loaded[name] for name in base.tensors if name in loaded}
    for name, tensor in named.items():
        if not torch.equal(load_stored(base, name).to(tensor.dtype), tensor.detach().cpu()):
            raise UnsupportedInputError(
                f"{base.path}: transformers loads tensor {name!r} with another shape or other "
                "values than the stored ones; patchc cannot derive for this architecture"
            )
    stored_tensors = {id(tensor) for tensor in named.values()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in stored_tensors:
            raise UnsupportedInputError(
                f"{base.path}: transformers loads parameter {name!r}, which the checkpoint does "
                "not store under that name; patchc cannot derive for this architecture"
            )
    return named


def load_stored(base: Checkpoint, name: str) -> Tensor:
    """Load a tensor of the base in its stored dtype, on the CPU.

    Raises:
        CheckpointError: a file became unreadable or shorter.
    """
    source = BaseSource(base)
    return read_whole(source, name, base.tensors[name].shape, source.kind(name))
