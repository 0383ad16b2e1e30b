"""Loaded models of transformers, patched through the mapping that is found for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from live_states import bits
from safetensors.torch import load_file, save_file

import patchc
import patchc.torch as live
from patchc.errors import UsageError
from patchc.torch import Slice

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 8, "num_experts_per_tok": 2}
LATENT: dict[str, Any] = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}


def llava(tied: bool) -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    text = transformers.LlamaConfig(**SIZES)
    return transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=63, tie_word_embeddings=tied
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "Mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4),
    "Qwen2Moe": lambda: transformers.Qwen2MoeConfig(
        **SIZES, **EXPERTS, num_experts=4, shared_expert_intermediate_size=8
    ),
    "Qwen3Moe": lambda: transformers.Qwen3MoeConfig(**SIZES, **EXPERTS, num_experts=4, head_dim=8),
    "DeepseekV3": lambda: transformers.DeepseekV3Config(
        **SIZES, **EXPERTS, **LATENT, n_routed_experts=4, first_k_dense_replace=1
    ),
    "Glm4Moe": lambda: transformers.Glm4MoeConfig(
        **SIZES, **EXPERTS, n_routed_experts=4, first_k_dense_replace=1, head_dim=8
    ),
    "Olmoe": lambda: transformers.OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2),
    "tied Llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "MiniMaxM2": lambda: transformers.MiniMaxM2Config(
        **SIZES | {"intermediate_size": 8}, num_local_experts=4, num_experts_per_tok=2, head_dim=8
    ),
    "Llava": lambda: llava(False),
    "tied Llava": lambda: llava(True),
}


def make(config: Any) -> Any:
    """A model with random weights in bfloat16."""
    torch.manual_seed(5)
    kind = transformers.AutoModelForImageTextToText if config.model_type == "llava" else None
    kind = kind or transformers.AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor += 0.2 * torch.randn(tensor.shape)
    return model


def tune(base: Path, tuned: Path) -> None:
    """Write a checkpoint of which some words of every tensor differ."""
    tensors = load_file(base / "model.safetensors")
    for tensor in tensors.values():
        words = tensor.view(-1).view(torch.int16 if tensor.element_size() == 2 else torch.int32)
        words[::7] ^= 1
    tuned.mkdir()
    (tuned / "config.json").write_bytes((base / "config.json").read_bytes())
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})


class Made:
    """A model's folder, a tuned one, and the patch between them."""

    def __init__(self, folder: Path, config: Any) -> None:
        model = make(config)
        self.kind = type(model)
        self.base, self.tuned = folder / "base", folder / "tuned"
        model.save_pretrained(self.base)
        tune(self.base, self.tuned)
        self.patch = folder / "fix.patchc"
        patchc.diff(self.base, self.tuned, out=self.patch, weights_only=True)

    def load(self, folder: Path) -> Any:
        return self.kind.from_pretrained(folder, dtype="auto")

    def check(
        self, model: Any, loaded: Any, mapping: Mapping[str, list[Slice]], **options: Any
    ) -> None:
        """Patch a model that wraps ``loaded``, and take it back."""
        before, after = (bits(self.load(one).state_dict()) for one in (self.base, self.tuned))
        assert bits(loaded.state_dict()) == before != after
        live.apply_(model, self.patch, mapping=mapping, **options)
        assert bits(loaded.state_dict()) == after
        live.revert_(model, self.patch, mapping=mapping, **options)
        assert bits(loaded.state_dict()) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patched_model_is_the_patched_folder_loaded(tmp_path: Path, family: str) -> None:
    made = Made(tmp_path, FAMILIES[family]())
    model = made.load(made.base)
    mapping = live.mapping_for(model)
    assert bool(mapping) == (family != "tied Llama")
    made.check(model, model, mapping)


def test_a_model_that_was_not_loaded_has_names_of_tied_weights_that_no_file_has(
    tmp_path: Path,
) -> None:
    """Such as one made from its configuration and filled by a trainer."""
    config = FAMILIES["tied Llava"]()
    made = Made(tmp_path, config)
    model = make(config)
    mapping = live.mapping_for(model)
    assert mapping["lm_head.weight"] == [Slice("language_model.lm_head.weight")]
    made.check(model, model, mapping)


@pytest.mark.parametrize("family", ["Qwen3Moe", "tied Llama"])
def test_the_patch_tells_whether_names_have_the_base_models_prefix(
    tmp_path: Path, family: str
) -> None:
    """A model without a head, loaded from a checkpoint of one with a head."""
    made = Made(tmp_path, FAMILIES[family]())
    made.kind = made.kind.from_pretrained(made.base).base_model.__class__
    model = made.load(made.base)
    mapping = live.mapping_for(model, patch=made.patch)
    made.check(model, model, mapping, base=made.base, shard=True)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("mixtral"), FAMILIES["Mixtral"]())


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def with_compiled_layers(model: torch.nn.Module) -> torch.nn.Module:
    layers = model.get_submodule("model.layers")
    layers[0] = compiled(layers[0])
    layers[1] = torch.nn.DataParallel(compiled(layers[1]))
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        torch.nn.DataParallel,
        lambda model: compiled(torch.nn.DataParallel(compiled(model))),
        lambda model: torch.nn.DataParallel(torch.nn.DataParallel(model)),
        with_compiled_layers,
    ],
    ids=["compiled", "parallel", "both", "twice", "layers"],
)
def test_wrapped_models(mixtral: Made, wrap: Callable[[Any], torch.nn.Module]) -> None:
    model = mixtral.load(mixtral.base)
    inner = mixtral.load(mixtral.base)
    mapping = live.mapping_for(inner)
    wrapped = wrap(model)
    found = live.mapping_for(wrapped)
    assert [held for held in found.values() if held in mapping.values()] == [*mapping.values()]
    live.apply_(wrapped, mixtral.patch, mapping=found)
    live.apply_(inner, mixtral.patch, mapping=mapping)
    assert list(bits(wrapped.state_dict()).values()) == list(bits(inner.state_dict()).values())
    live.revert_(wrapped, mixtral.patch, mapping=found)
    before = bits(mixtral.load(mixtral.base).state_dict())
    assert list(bits(wrapped.state_dict()).values()) == list(before.values())


def test_a_model_without_memory_has_the_same_mapping() -> None:
    config = FAMILIES["Qwen3Moe"]()
    with torch.device("meta"):
        model = transformers.Qwen3MoeForCausalLM(config)
    assert live.mapping_for(model) == live.mapping_for(make(config))


def test_a_checkpoint_in_another_layout_is_told_by_its_names(mixtral: Made) -> None:
    """A model that was not loaded takes the layout that the library would write."""
    model = mixtral.load(mixtral.base)
    mapping = live.mapping_for(model)
    name = "model.layers.1.mlp.experts.down_proj"
    wrong = mapping | {name: [Slice("experts.down_proj"), *mapping[name][1:]]}
    message = f"'{name}': the base of .* has no 'experts.down_proj'; name a .*, or give .* an empty"
    with pytest.raises(UsageError, match=message):
        live.apply_(model, mixtral.patch, mapping=wrong)
    with pytest.raises(UsageError, match=message):
        live.apply_(model, mixtral.patch, mapping=wrong | {name: [Slice("experts.down_proj")]})


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match="the model is a dict; mapping_for takes a module"):
        live.mapping_for({})  # type: ignore[arg-type]
