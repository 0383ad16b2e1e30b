"""Models that the real libraries quantised: recognised, refused by name, and patched exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from command_line import run
from quantising import Way, awq, bitsandbytes, compressed, fp8, gptq, metal, mxfp4, torchao
from tiny_checkpoints import Raw, read_model, tree
from tiny_llama import write_base, write_data

import patchc
from patchc import EvaluateOptions, MergeRecipe
from patchc.errors import UnsupportedInputError

_4BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
WAYS: dict[str, tuple[str, Callable[[], Way]]] = {
    "NF4": ("bitsandbytes NF4", partial(bitsandbytes, **_4BIT)),
    "NF4, double": (
        "bitsandbytes NF4, double-quantised",
        partial(bitsandbytes, **_4BIT, bnb_4bit_use_double_quant=True),
    ),
    "NF4 in bf16": (
        "bitsandbytes NF4",
        partial(bitsandbytes, **_4BIT, bnb_4bit_quant_storage=torch.bfloat16),
    ),
    "FP4": ("bitsandbytes FP4", partial(bitsandbytes, load_in_4bit=True)),
    "LLM.int8": ("bitsandbytes LLM.int8", partial(bitsandbytes, load_in_8bit=True)),
    "FP8 blocks": ("FP8 with block scales", fp8),
    "FP8 blocks, ue8m0": ("FP8 with block scales in E8M0", partial(fp8, "ue8m0")),
    "MXFP4 of gpt-oss": ("MXFP4, blocks with scales", mxfp4),
    "Metal": ("U32 with scales of groups", metal),
    "W4A16": ("compressed-tensors pack-quantized", partial(compressed, "W4A16")),
    "W4A16, asymmetric": ("compressed-tensors pack-quantized", partial(compressed, "W4A16_ASYM")),
    "W3A16": ("compressed-tensors pack-quantized", partial(compressed, "W3A16")),
    "FP8": ("FP8 with one scale", partial(compressed, "FP8")),
    "FP8_DYNAMIC": ("FP8 with a scale for each row", partial(compressed, "FP8_DYNAMIC")),
    "FP8_BLOCK": ("FP8 with block scales", partial(compressed, "FP8_BLOCK")),
    "W8A8": ("INT8 with scales", partial(compressed, "W8A8")),
    "NVFP4": ("NVFP4 of compressed-tensors", partial(compressed, "NVFP4")),
    "MXFP4": ("MXFP4 of compressed-tensors", partial(compressed, "MXFP4")),
    "MXFP6": ("MXFP6 of compressed-tensors", partial(compressed, "MXFP6A16")),
    "MXFP8": ("MXFP8", partial(compressed, "MXFP8")),
}

HEAVY: dict[str, tuple[str, Callable[[], Way]]] = {
    "GPTQ": ("GPTQ", gptq),
    "AWQ": ("AWQ", awq),
    "torchao": ("torchao", torchao),
}
"""Of libraries that ask for another torch; `make test-quantised` installs them."""


class Quantised(NamedTuple):
    """The bf16 base, it and a tuned model quantised in one way, and what that layout is called."""

    plain: Path
    base: Path
    tuned: Path
    layout: str


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model in bf16, and one with other weights."""
    folder = tmp_path_factory.mktemp("plain")
    first, second = (
        write_base(folder / str(seed), hidden=256, inner=256, layers=1, seed=seed)
        for seed in (3, 4)
    )
    return first, second


@pytest.fixture(scope="module")
def made(
    plain: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Quantised]:
    """Quantises both in a way; each way once."""

    @cache
    def make(name: str) -> Quantised:
        folder = tmp_path_factory.mktemp("quantised")
        layout, way = (WAYS | HEAVY)[name]
        for source, part in zip(plain, ("base", "tuned"), strict=True):
            way()(source, folder / part)
        return Quantised(plain[0], folder / "base", folder / "tuned", layout)

    return make


@pytest.fixture(
    scope="module",
    params=[*WAYS, *(pytest.param(one, marks=pytest.mark.quantisers) for one in HEAVY)],
)
def models(request: pytest.FixtureRequest, made: Callable[[str], Quantised]) -> Quantised:
    return made(request.param)


def test_refused_by_name_where_weights_are_computed_with(models: Quantised, tmp_path: Path) -> None:
    """Derivations, builds and merges; whether the configuration states it or not."""
    silent, out = _without_statement(models.base, tmp_path / "silent"), tmp_path / "out"
    data, base, tuned = write_data(tmp_path / "data.jsonl"), models.plain, models.tuned
    asked = [(silent, m) for m in ("task-arithmetic", "dare", "ties", "magnitude")]
    for quantised, method in [*asked, (models.base, "ties")]:
        merge = partial(patchc.build, out=out, recipe=MergeRecipe(method))  # type: ignore[arg-type]
        calls: list[Callable[[], Any]] = [
            partial(merge, quantised, tuned=tuned),
            partial(merge, base, tuned=[base, quantised]),
        ]
        if method == "ties":
            calls += [
                partial(patchc.derive, quantised, data, out),
                partial(patchc.build, quantised, se=base, osm=base, out=out),
                partial(patchc.build, base, se=quantised, osm=quantised, out=out),
            ]
        for call in calls:
            with pytest.raises(UnsupportedInputError) as refused:
                call()
            message = str(refused.value)
            assert f"{quantised}: tensor 'model.layers.0." in message, message
            assert f"is quantised ({models.layout}" in message
    code, _, errors = run("build", silent, "--recipe", "ties", "--tuned", tuned, "-o", out)
    assert code == 4
    assert "model.layers.0." in errors
    assert not out.exists()


def test_codes_are_not_evaluated_as_weights(models: Quantised, tmp_path: Path) -> None:
    """transformers decodes by what config.json states, and takes the codes as they are else."""
    ask = write_data(tmp_path / "ask.jsonl")
    unknown = _without_statement(models.base, tmp_path / "unknown", {"quant_method": "unheard-of"})
    for model in (_without_statement(models.base, tmp_path / "silent"), unknown):
        with pytest.raises(UnsupportedInputError, match="codes would be loaded as weights") as told:
            patchc.evaluate([model], harmful=ask, harmless=ask)
        assert f"{model}: tensor 'model.layers.0." in str(told.value)


def test_a_model_that_states_its_layout_is_evaluated(
    made: Callable[[str], Quantised], tmp_path: Path
) -> None:
    ask = write_data(tmp_path / "ask.jsonl")
    options = EvaluateOptions(max_new_tokens=2)
    (found,) = patchc.evaluate(
        [made("NF4").base], harmful=ask, harmless=ask, options=options
    ).models
    assert found.harmful.total == 5


def _without_statement(model: Path, copy: Path, stated: dict[str, str] | None = None) -> Path:
    """Copy a model whose configuration states another method, or nothing."""
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    del config["quantization_config"]
    if stated:
        config["quantization_config"] = stated
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_updates_are_exact(models: Quantised, tmp_path: Path) -> None:
    patchc.diff(models.base, models.tuned, out=tmp_path / "q.patchc")
    patchc.apply(tmp_path / "q.patchc", models.base, out=tmp_path / "there")
    patchc.revert(tmp_path / "q.patchc", tmp_path / "there", out=tmp_path / "back")
    assert tree(tmp_path / "there") == tree(models.tuned)
    assert tree(tmp_path / "back") == tree(models.base)


def test_a_state_of_another_length_is_among_them(made: Callable[[str], Quantised]) -> None:
    """Double quantisation writes its offset as a decimal, so tensors change their shape."""
    models = made("NF4, double")
    states: list[dict[str, Raw]] = [
        {k: v for k, v in read_model(path).items() if ".quant_state." in k}
        for path in (models.base, models.tuned)
    ]
    assert any(states[0][name].shape != states[1][name].shape for name in states[0])
