"""Finds what a vLLM model holds of its checkpoint, by what its classes and layers declare.

vLLM joins projections in one parameter, stacks a layer's experts, pads the vocabulary and renames.
Its model classes say how: ``packed_modules_mapping``, ``get_expert_mapping``,
``hf_to_vllm_mapper``. Only attributes are looked at; vLLM is not imported.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from patchc.torch.renamed_names import names_before
from patchc.torch.slices import Slice, chosen, unmappable

_Lineage = Sequence[tuple[str, torch.nn.Module]]
"""The modules that a parameter is in, with their names; the model itself first."""

_PARTITIONED = (
    "output_size_per_partition",
    "input_size_per_partition",
    "num_embeddings_per_partition",
)
_SHARDS = {"q": 0, "k": 1, "v": 2}


class _UnknownError(Exception):
    """What a parameter holds is not rows, or not known; says why."""


def is_engine_model(model: torch.nn.Module) -> bool:
    """Whether a module is a model of vLLM, or says as one what its parameters hold."""
    modules = (kind.__module__.partition(".")[0] for kind in type(model).__mro__)
    return "vllm" in modules or hasattr(model, "packed_modules_mapping")


def engine_slices(
    model: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    known: Container[str] | None = None,
) -> dict[str, list[Slice]]:
    """What each tensor of a vLLM model holds of the checkpoint that it was loaded from.

    Args:
        model: a model of vLLM, without wrappers.
        tensors: its parameters and persistent buffers by name.
        known: names of the checkpoint's tensors; None if they are not known.

    Raises:
        UnsupportedInputError: parameters are quantised, are shards of tensor parallelism, or hold
            experts whose names the model does not tell; names them.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    absorbed = _absorbed(modules.values())
    held: dict[str, list[Slice]] = {}
    refused: dict[str, str] = {}
    for name, tensor in tensors.items():
        lineage = [(path, modules[path]) for path in _paths(name) if path in modules]
        try:
            if id(tensor) in absorbed:
                raise _UnknownError("vLLM computes with tensors that it made of it when loading")
            held[name] = [
                replace(one, tensor=chosen([*_in_files(one.tensor, lineage)], known))
                for one in _slices(name, tensor, lineage)
            ]
        except _UnknownError as error:
            refused[name] = str(error)
    if refused:
        raise unmappable(list(refused), next(iter(refused.values())))
    return held


def _absorbed(modules: Iterable[Any]) -> set[int]:
    """Parameters that latent attention has taken up in W_UK and W_UV, which would not change."""
    latent = [one for one in modules if hasattr(one, "W_UV") or hasattr(one, "W_UK_T")]
    layers = (getattr(one, "kv_b_proj", None) for one in latent)
    return {id(tensor) for layer in layers if layer is not None for tensor in layer.parameters()}


def _paths(name: str) -> Iterator[str]:
    """The names of the modules that a parameter is in, from the model itself inwards."""
    yield ""
    parts = name.split(".")[:-1]
    for at in range(len(parts)):
        yield ".".join(parts[: at + 1])


def _slices(name: str, tensor: torch.Tensor, lineage: _Lineage) -> list[Slice]:
    """What a parameter holds, under the names that the model has for its parts."""
    _, module = lineage[-1]
    method = getattr(module, "quant_method", None)
    if method is not None and "Unquantized" not in type(method).__name__:
        raise _UnknownError(f"its layer is run by {type(method).__name__}")
    if _shards(module) > 1:
        raise _UnknownError(f"it is one of {_shards(module)} shards of tensor parallelism")
    if name.rpartition(".")[2].startswith(("w13_", "w2_")):
        return _experts(name, tensor, lineage)
    vocabulary = getattr(module, "org_vocab_size", None)
    if vocabulary is not None and vocabulary < tensor.shape[0]:
        return [Slice(name, (0, vocabulary))]
    return [Slice(part) for part in _parts(name, lineage)]


def _shards(module: torch.nn.Module) -> int:
    """How many ranks share a layer's parameters."""
    if hasattr(module, "w13_weight"):
        config = getattr(module, "moe_config", None)
        return int(getattr(module, "tp_size", getattr(config, "tp_size", 1)))
    partitioned = any(hasattr(module, name) for name in _PARTITIONED)
    return int(getattr(module, "tp_size", 1)) if partitioned else 1


def _parts(name: str, lineage: _Lineage) -> list[str]:
    """The names of what is joined in a parameter; its own if nothing is."""
    path, _, leaf = name.rpartition(".")
    for joined, parts in _joined(lineage):
        if f".{path}".endswith(f".{joined}"):
            before = path.removesuffix(joined)
            return [f"{before}{part}.{leaf}" for part in parts]
    return [name]


def _joined(lineage: _Lineage) -> Iterator[tuple[str, Sequence[str]]]:
    """Layers of joined projections with their parts, in order; what decides comes first."""
    inwards = [module for _, module in reversed(lineage)]
    for module in inwards:
        packed = getattr(module, "packed_modules_mapping", None)
        yield from (packed if isinstance(packed, Mapping) else {}).items()
    for module in inwards:
        mapper = getattr(module, "hf_to_vllm_mapper", None)
        stacked: dict[str, dict[int, str]] = {}
        for part, (joined, shard) in getattr(mapper, "orig_to_new_stacked", {}).items():
            first = shard[0] if isinstance(shard, tuple) else shard
            place = _SHARDS[first] if first in _SHARDS else int(first)
            stacked.setdefault(joined.strip("."), {})[place] = part.strip(".")
        for joined, parts in stacked.items():
            yield joined, [parts[at] for at in sorted(parts)]


def _experts(name: str, tensor: torch.Tensor, lineage: _Lineage) -> list[Slice]:
    """The slices of a parameter of stacked experts: [experts, rows, columns], gate before up."""
    plain = name.replace(".routed_experts.", ".")
    local = _local_experts(lineage[-1][1])
    rows = tensor.shape[1]
    gated = _is_gated(lineage[-1][1])
    slices = {}
    for stacked, named, expert, shard in _expert_mapping(lineage):
        stacked = stacked.replace("routed_experts.", "")
        at = expert if local is None else local.get(expert)
        if stacked in plain and at is not None and (gated or shard != "w3"):
            begin = at * rows + (rows // 2 if shard == "w3" else 0)
            slices[begin] = Slice(plain.replace(stacked, named), None, begin)
    if len(slices) != tensor.shape[0] * (2 if gated and ".w13_" in name else 1):
        raise _UnknownError(f"its {tensor.shape[0]} experts are not those that the model names")
    return [slices[begin] for begin in sorted(slices)]


def _local_experts(module: torch.nn.Module) -> dict[int, int] | None:
    """Expert → place in this process, with expert parallelism; None if all are here in order."""
    places = getattr(module, "_expert_map", None)
    places = getattr(module, "expert_map", None) if places is None else places
    if places is None:
        return None
    return {expert: place for expert, place in enumerate(places.tolist()) if place >= 0}


def _is_gated(module: Any) -> bool:
    """Whether w13 holds gate and up; without a gate it is as high as w2 is wide."""
    return bool(module.w13_weight.shape[1] == 2 * module.w2_weight.shape[2])


def _expert_mapping(lineage: _Lineage) -> list[tuple[str, str, int, str]]:
    """Rows (name of a stacked parameter, name in files, expert, w1 or w2 or w3), from vLLM."""
    for _, module in reversed(lineage):
        tell = getattr(module, "get_expert_mapping", None)
        if callable(tell) and (rows := list(tell())):
            return rows
    raise _UnknownError("the model has no get_expert_mapping that tells the names of its experts")


def _in_files(name: str, lineage: _Lineage) -> Iterator[str]:
    """Names before the renamings of the modules around; vLLM applies the outermost first."""
    if not lineage:
        yield name
        return
    *around, (path, module) = lineage
    mapper = getattr(module, "hf_to_vllm_mapper", None)
    within = f"{path}." if path else ""
    if mapper is None or not name.startswith(within):
        yield from _in_files(name, around)
        return
    for before in names_before(mapper, name.removeprefix(within)):
        yield from _in_files(within + before, around)
