"""Models with the attributes of vLLM's, whose parameters are fused, stacked, padded and renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from live_states import Update, bits, make_update, to_torch
from numpy.typing import NDArray
from tiny_checkpoints import normal, nudge
from torch import nn

import patchc.torch as live
from patchc.errors import UnsupportedInputError, UsageError
from patchc.torch import Slice

EXPERTS = 4
LAYER = "model.layers.0."
QKV, STACKED = LAYER + "attn.qkv_proj.", LAYER + "mlp.experts."
HEIGHTS = {"q": 16, "k": 8, "v": 8}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (50, 16),
    **{f"{LAYER}attn.{part}_proj.weight": (rows, 16) for part, rows in HEIGHTS.items()},
    **{f"{LAYER}attn.{part}_proj.bias": (rows,) for part, rows in HEIGHTS.items()},
    LAYER + "attn.o_proj.weight": (16, 16),
    LAYER + "mlp.gate.weight": (EXPERTS, 16),
    **{f"{STACKED}{at}.gate_proj.weight": (8, 16) for at in range(EXPERTS)},
    **{f"{STACKED}{at}.up_proj.weight": (8, 16) for at in range(EXPERTS)},
    **{f"{STACKED}{at}.down_proj.weight": (16, 8) for at in range(EXPERTS)},
    "model.norm.weight": (16,),
}


class UnquantizedLinearMethod:
    """Named as vLLM's."""


class Fp8LinearMethod:
    """Named as vLLM's."""


class Layer(nn.Module):
    """A linear layer with the attributes that vLLM's have."""

    def __init__(self) -> None:
        super().__init__()
        self.tp_size = 1
        self.output_size_per_partition = 16
        self.quant_method: object = UnquantizedLinearMethod()


class Renamer:
    """Has the rules and methods of a WeightsMapper."""

    def __init__(self, **rules: dict[str, Any]) -> None:
        for kind in ("substr", "prefix", "suffix", "stacked"):
            setattr(self, f"orig_to_new_{kind}", rules.get(kind, {}))

    def apply_list(self, names: list[str]) -> list[str]:
        return [self.renamed(name) for name in names]

    def renamed(self, name: str) -> str:
        rules: Any = self
        for old, new in rules.orig_to_new_substr.items():
            name = name.replace(old, new, 1)
        for old, new in rules.orig_to_new_prefix.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        for old, new in rules.orig_to_new_suffix.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name


class Model(nn.Module):
    packed_modules_mapping: ClassVar = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def get_expert_mapping(self) -> list[tuple[str, str, int, str]]:
        names = (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
        return [
            (f"experts.w{'2' if shard == 'w2' else '13'}_", f"experts.{at}.{name}.", at, shard)
            for at in range(EXPERTS)
            for shard, name in names
        ]


def fused(tensors: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The parameters as vLLM holds them."""
    taken = ("embed", ".experts.", ".q_proj", ".k_proj", ".v_proj")
    held = {name: value for name, value in tensors.items() if not any(t in name for t in taken)}
    for leaf in ("weight", "bias"):
        parts = [tensors[f"{LAYER}attn.{part}_proj.{leaf}"] for part in HEIGHTS]
        held[QKV + leaf] = np.concatenate(parts)
    gate, up, down = (
        np.stack([tensors[f"{STACKED}{at}.{name}_proj.weight"] for at in range(EXPERTS)])
        for name in ("gate", "up", "down")
    )
    held[STACKED + "w13_weight"] = np.concatenate([gate, up], axis=1)
    held[STACKED + "w2_weight"] = down
    padded = np.zeros((64, 16), gate.dtype)
    padded[:50] = tensors["model.embed_tokens.weight"]
    return held | {"model.embed_tokens.weight": padded}


def engine(held: Mapping[str, NDArray], kind: type[nn.Module] = Model) -> nn.Module:
    """A model with these parameters."""
    model = kind()
    for name, value in held.items():
        module = model
        *path, leaf = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, Layer() if part.endswith("_proj") else nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(to_torch(value), requires_grad=False))
    for module in model.modules():
        if getattr(module, "weight", None) is not None and module.weight.shape[0] == 64:
            module.org_vocab_size = 50  # type: ignore[assignment]
    return model


@pytest.fixture
def update(tmp_path: Path) -> Update:
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(SHAPES.items())}
    after = {name: nudge(value, 0.3, 3) for name, value in before.items()}
    return make_update(tmp_path, before, after)


def check(
    update: Update, model: nn.Module, after: nn.Module, told: Path | None = None, **options: Any
) -> None:
    """Patch a model through its mapping, and take it back."""
    mapping = live.mapping_for(model, patch=told)
    before = bits(model.state_dict())
    live.apply_(model, update.patch, mapping=mapping, **options)
    assert bits(model.state_dict()) == bits(after.state_dict()) != before
    live.revert_(model, update.patch, mapping=mapping, **options)
    assert bits(model.state_dict()) == before


def test_fused_stacked_and_padded_parameters(update: Update) -> None:
    model = engine(fused(update.before))
    assert live.mapping_for(model)[QKV + "bias"] == [
        Slice(f"{LAYER}attn.{part}_proj.bias") for part in HEIGHTS
    ]
    check(update, model, engine(fused(update.after)))
    check(update, nn.DataParallel(model), nn.DataParallel(engine(fused(update.after))))


class Renamed(Model):
    hf_to_vllm_mapper = Renamer(
        prefix={"model.": "language.model.", "old.": "language.model."},
        substr={".norm.": ".final.", ".attn.o_": ".attn.out_", ".attn.": ".attention."},
        suffix={".gate.weight": ".router.weight"},
    )


class Stacked(Model):
    packed_modules_mapping: ClassVar = {}
    hf_to_vllm_mapper = Renamer(
        stacked={
            ".v_proj": (".qkv_proj", "v"),
            ".q_proj": (".qkv_proj", "q"),
            ".k_proj": (".qkv_proj", "k"),
        }
    )


def renamed(held: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {Renamed.hf_to_vllm_mapper.renamed(name): value for name, value in held.items()}


def test_renamed_parameters(update: Update) -> None:
    before, after = (engine(renamed(fused(one)), Renamed) for one in (update.before, update.after))
    check(update, before, after)


def test_the_patch_tells_which_layout_was_loaded(tmp_path: Path, update: Update) -> None:
    """Two prefixes of checkpoints become one in the model."""
    old, new = (
        {name.replace("model.", "old."): value for name, value in tensors.items()}
        for tensors in (update.before, update.after)
    )
    (tmp_path / "old").mkdir()
    other = make_update(tmp_path / "old", old, new)
    before, after = (engine(renamed(fused(one)), Renamed) for one in (update.before, update.after))
    with pytest.raises(UsageError, match=r"'language.model.* has no 'model"):
        check(other, before, after)
    check(other, before, after, other.patch)


def test_joined_layers_that_only_the_renamings_tell(update: Update) -> None:
    check(update, engine(fused(update.before), Stacked), engine(fused(update.after), Stacked))


def routed(held: Mapping[str, NDArray]) -> dict[str, NDArray]:
    old = ".experts.w"
    return {name.replace(old, ".experts.routed_experts.w"): value for name, value in held.items()}


def test_experts_in_a_module_of_their_own(update: Update) -> None:
    check(update, engine(routed(fused(update.before))), engine(routed(fused(update.after))))


def test_experts_of_one_process(update: Update) -> None:
    """Expert parallelism: the process has experts 3 and 1, in this order, and all else."""

    def make(tensors: Mapping[str, NDArray]) -> nn.Module:
        held = fused(tensors)
        for name in ("w13_weight", "w2_weight"):
            held[STACKED + name] = held[STACKED + name][[3, 1]]
        model = engine(held)
        experts: Any = model.get_submodule(STACKED[:-1])
        experts.expert_map = torch.tensor([-1, 1, -1, 0])
        return model

    check(update, make(update.before), make(update.after), base=update.base, shard=True)


def test_experts_without_a_gate(tmp_path: Path) -> None:
    names = [
        f"{STACKED}{at}.{name}_proj.weight" for at in range(EXPERTS) for name in ("up", "down")
    ]
    shapes = {name: (8, 16) if "up" in name else (16, 8) for name in names}
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(shapes.items())}
    update = make_update(tmp_path, before, {n: nudge(v, 0.3, 3) for n, v in before.items()})

    class Ungated(nn.Module):
        packed_modules_mapping: ClassVar = {}

        def get_expert_mapping(self) -> list[tuple[str, str, int, str]]:
            return [
                (f"experts.{stacked}_", f"experts.{at}.{name}.", at, shard)
                for at in range(EXPERTS)
                for stacked, name, shard in (
                    ("w13", "up_proj", "w1"), ("w2", "down_proj", "w2"), ("w13", "", "w3"),
                )
            ]  # fmt: skip

    def make(tensors: Mapping[str, NDArray]) -> nn.Module:
        held = {
            f"{STACKED}{stacked}_weight": np.stack([v for n, v in tensors.items() if name in n])
            for stacked, name in (("w13", "up"), ("w2", "down"))
        }
        return engine(held, Ungated)

    check(update, make(update.before), make(update.after))


def _quantised(model: Any) -> None:
    model.get_submodule(QKV[:-1]).quant_method = Fp8LinearMethod()


def _sharded(model: Any) -> None:
    model.get_submodule(LAYER + "attn.o_proj").tp_size = 2


def _sharded_experts(model: Any) -> None:
    model.get_submodule(STACKED[:-1]).tp_size = 2


def _other_experts(model: Any) -> None:
    model.get_submodule(STACKED[:-1]).expert_map = torch.tensor([0, -1, -1, -1])


def _unnamed_experts(model: Any) -> None:
    model.get_expert_mapping = None


def _absorbed(model: Any) -> None:
    attention = model.get_submodule(LAYER + "attn")
    attention.kv_b_proj, attention.W_UV = attention.o_proj, torch.ones(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_quantised, "qkv_proj.weight', .*qkv_proj.bias' .*run by Fp8LinearMethod"),
        (_sharded, "parameter '.*o_proj.weight' .*one of 2 shards of tensor parallelism"),
        (_sharded_experts, "w13_weight', '.*w2_weight' .*one of 2 shards"),
        (_other_experts, "w13_weight', .*its 4 experts are not those that the model names"),
        (_unnamed_experts, "w13_weight', .*no get_expert_mapping"),
        (_absorbed, "o_proj.weight', .*computes with tensors that it made of it"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(
    update: Update, change: Callable[[nn.Module], None], message: str
) -> None:
    model = engine(fused(update.before))
    change(model)
    with pytest.raises(UnsupportedInputError, match=message):
        live.mapping_for(model)
