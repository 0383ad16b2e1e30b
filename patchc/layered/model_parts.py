"""Builds a model of transformers without its weights, and finds its layers, embedding and head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch.nn import Parameter
from transformers import AutoModelForCausalLM

from patchc.checkpoint import Checkpoint
from patchc.errors import UnsupportedInputError
from patchc.layered.from_folder import build_model, load_config
from patchc.layered.sources import BaseSource, read_whole

_COMPARED = 1 << 22


@dataclass(frozen=True)
class ModelParts:
    """A model without weights, in parts.

    Attributes:
        model: transformers' model; its layers' parameters are empty.
        layers: its decoder layers.
        layer_names: for each layer, the name in the checkpoint of each of its parameters, by the
            parameter's name within the layer.
        embedding, head: the modules of the input embedding and the output head.
        embedding_name, head_name: the names of their weights; the same one where they are tied.
        rest: all other parameters, by name; they hold the base's values.
        shapes: the shape of every parameter, by name.
        names: the name that stands for each name in the checkpoint; two names stand for one
            parameter where a tied head is stored too.
        in_bf16: layers' parameters that autocast rounds to bfloat16 before it uses them.
    """

    model: Any
    layers: Any
    layer_names: tuple[Mapping[str, str], ...]
    embedding: Any
    head: Any
    embedding_name: str
    head_name: str
    rest: Mapping[str, Parameter]
    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]
    in_bf16: frozenset[str]

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one tensor."""
        return self.embedding_name == self.head_name

    @property
    def inside(self) -> set[str]:
        """The names of all tensors in the layers."""
        return {name for names in self.layer_names for name in names.values()}

    @property
    def hidden(self) -> int:
        """The size of a token's states."""
        return self.shapes[self.head_name][1]

    @property
    def head_width(self) -> int:
        """The size of one attention head's share of them."""
        config = self.model.config.get_text_config()
        stated: int | None = getattr(config, "head_dim", None)
        return stated or self.hidden // getattr(config, "num_attention_heads", 1)

    def group(self, number: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a layer's tensors, by their names in the checkpoint."""
        return {name: self.shapes[name] for name in self.layer_names[number].values()}


def load_parts(base: Checkpoint, device: torch.device, dtype: torch.dtype) -> ModelParts:
    """Build the base's architecture, and find which of its tensors belongs where.

    Attention is fused where the architecture has it, and otherwise in plain tensor operations.

    Raises:
        UnsupportedInputError: transformers does not know it as a causal language model, it has a
            parameter that the base does not store under that name and in that shape (transformers
            may fuse, rename or convert tensors as it loads), no list of layers, or layers that
            share a parameter.
    """
    model = _build(base, dtype)
    layers_name, layers = _find_layers(model, base)
    stored = _stored_names(model, base)
    names = {name: own[0] for own in stored.values() for name in own}
    shapes = {own[0]: base.tensors[own[0]].shape for own in stored.values()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    _check_ends(base, embedding, head)
    embedding_name = stored[id(embedding.weight)][0]
    head_name = stored[id(head.weight)][0]
    layer_names = tuple(
        {local: f"{layers_name}.{number}.{local}" for local, _ in layer.named_parameters()}
        for number, layer in enumerate(layers)
    )
    _check_apart(base, layer_names, shapes)
    apart = {embedding_name, head_name, *(one for each in layer_names for one in each.values())}
    linear = {
        f"{layers_name}.{number}.{inner}.weight"
        for number, layer in enumerate(layers)
        for inner, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    source = BaseSource(base)
    for name, buffer in model.named_buffers():
        if name in base.tensors:
            buffer.copy_(read_whole(source, name, tuple(buffer.shape), buffer.dtype))
    rest: dict[str, Parameter] = {}
    for _, module in list(model.named_modules()):
        for local, parameter in list(module.named_parameters(recurse=False)):
            name = stored[id(parameter)][0]
            if name not in apart:
                values = read_whole(source, name, shapes[name], dtype).to(device)
                rest[name] = module._parameters[local] = Parameter(values, requires_grad=False)
            else:
                empty = torch.empty(0, dtype=dtype, device=device)
                module._parameters[local] = Parameter(empty, requires_grad=False)
    model.to(device)
    return ModelParts(
        model=model.eval(),
        layers=layers,
        layer_names=layer_names,
        embedding=embedding,
        head=head,
        embedding_name=embedding_name,
        head_name=head_name,
        rest=rest,
        shapes=shapes,
        names=names,
        in_bf16=frozenset(linear),
    )


def _build(base: Checkpoint, dtype: torch.dtype) -> Any:
    """Build the model with its parameters on the meta device, and its buffers computed."""
    config = load_config(base.path, base)
    kind, what = AutoModelForCausalLM, "it as a causal language model"
    for attention in ("sdpa", "eager"):
        settings = {"dtype": dtype, "attn_implementation": attention}
        with suppress(ValueError), init_empty_weights(include_buffers=False):
            model = build_model(kind, config, base.path, what, **settings)
            break
    else:
        raise UnsupportedInputError(
            f"{base.path}: transformers cannot load {what} (none is known for "
            f"{type(config).__name__})"
        )
    model.tie_weights()
    return model


def _find_layers(model: Any, base: Checkpoint) -> tuple[str, Any]:
    """Find the list of modules that holds most parameters: the decoder's layers."""
    lists = [
        (sum(parameter.numel() for parameter in module.parameters()), name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module)
    ]
    if not lists:
        raise UnsupportedInputError(
            f"{base.path}: {type(model).__name__} has no list of decoder layers; patchc cannot "
            "derive for this architecture"
        )
    _, name, module = max(lists, key=lambda one: one[0])
    return name, module


def _stored_names(model: Any, base: Checkpoint) -> dict[int, list[str]]:
    """Find the checkpoint's names of every parameter, by its identity, and check what they hold."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), [])
        if name not in base.tensors:
            continue
        if base.tensors[name].shape != tuple(parameter.shape):
            raise UnsupportedInputError(
                f"{base.path}: transformers loads tensor {name!r} with another shape or other "
                "values than the stored ones; patchc cannot derive for this architecture"
            )
        found[id(parameter)].append(name)
    for name, parameter in model.named_parameters():
        own = found[id(parameter)]
        if not own:
            raise UnsupportedInputError(
                f"{base.path}: transformers loads parameter {name!r}, which the checkpoint does "
                "not store under that name; patchc cannot derive for this architecture"
            )
        for other in own[1:]:
            _check_equal(base, own[0], other)
    return found


def _check_equal(base: Checkpoint, one: str, other: str) -> None:
    """Refuse two stored tensors that the model ties and that differ."""
    first, second = base.tensors[one], base.tensors[other]
    for start in range(0, first.words, _COMPARED):
        count = min(_COMPARED, first.words - start)
        runs = [
            base.read_words(info, start, np.empty(count, info.dtype.word))
            for info in (first, second)
        ]
        if not np.array_equal(runs[0], runs[1]):
            raise UnsupportedInputError(
                f"{base.path}: the model ties {one!r} and {other!r}, and the checkpoint stores "
                "other values for each; store one of them, or set tie_word_embeddings to false"
            )


def _check_apart(
    base: Checkpoint, layer_names: tuple[Mapping[str, str], ...], shapes: Mapping[str, Any]
) -> None:
    """Refuse layers that share a parameter."""
    for name in (one for each in layer_names for one in each.values()):
        if name not in shapes:
            raise UnsupportedInputError(
                f"{base.path}: the parameter {name!r} of a layer is also that of another; patchc "
                "cannot derive for this architecture"
            )


def _check_ends(base: Checkpoint, embedding: Any, head: Any) -> None:
    if not isinstance(embedding, torch.nn.Embedding) or not isinstance(head, torch.nn.Linear):
        raise UnsupportedInputError(
            f"{base.path}: the input embedding is a {type(embedding).__name__} and the output head "
            f"a {type(head).__name__}; patchc derives for an embedding and a linear head"
        )
