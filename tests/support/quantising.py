"""Quantises the tiny Llama as users do, with the libraries that make such checkpoints, on the CPU.

Each way takes the folder of the bf16 model and writes another one: the same model, quantised.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.finegrained_fp8 import Fp8Quantize
from transformers.integrations.metal_quantization import MetalQuantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

Way = Callable[[Path, Path], None]
_LINEAR = re.compile(r"(.*\.layers\.\d+\..*_proj)\.weight")


def bitsandbytes(**settings: Any) -> Way:
    """Quantise as transformers loads, and save."""

    def quantise(base: Path, out: Path) -> None:
        config = BitsAndBytesConfig(**settings)
        model = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=config, device_map="cpu", dtype=torch.bfloat16
        )
        model.save_pretrained(out)
        _copy_side_files(base, out)

    return quantise


def fp8(scale_fmt: str | None = None) -> Way:
    """FP8 in blocks of 128 × 128, as DeepSeek has it, by what transformers quantises with."""
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": scale_fmt}
    quantise = Fp8Quantize(SimpleNamespace(quantization_config=SimpleNamespace(**config)))
    return _by_layer(config, lambda name, weight: quantise.convert({name: weight}))


def metal() -> Way:
    """Words of 4-bit codes with scales and biases of groups, as MLX has them."""
    config = {"quant_method": "metal", "bits": 4, "group_size": 64}
    quantise = MetalQuantize(SimpleNamespace(quantization_config=SimpleNamespace(**config)))
    return _by_layer(config, lambda name, weight: quantise.convert({name: weight}))


def mxfp4() -> Way:
    """Blocks of two codes a byte with their exponents, as gpt-oss has them.

    The library packs on a GPU alone; here, what it decodes has to be the weight's nearest codes.
    """
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])

    def quantise(name: str, weight: Tensor) -> dict[str, Tensor]:
        groups = weight.float().reshape(1, len(weight), -1, 32)
        exponents = groups.abs().amax(-1, keepdim=True).log2().floor().clamp(min=-100) - 2
        scaled = groups / exponents.exp2()
        nearest = (scaled.abs()[..., None] - table).abs().argmin(-1)
        codes = (nearest + 8 * (scaled < 0)).to(torch.uint8)
        blocks = codes[..., ::2] | codes[..., 1::2] << 4
        scales = (exponents[..., 0] + 127).to(torch.uint8)
        decoded = table[nearest] * scaled.sign() * exponents.exp2()
        found = convert_moe_packed_tensors(blocks, scales).transpose(1, 2)
        assert torch.equal(found.float().reshape(decoded.shape), decoded.bfloat16().float())
        stem = name.removesuffix(".weight")
        return {f"{stem}_blocks": blocks, f"{stem}_scales": scales}

    return _by_layer({"quant_method": "mxfp4"}, quantise)


def compressed(preset: str, **weights: Any) -> Way:
    """A scheme of compressed-tensors, with scales by min-max."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    scheme = preset_name_to_scheme(preset, ["Linear"])
    scheme.weights = scheme.weights.model_copy(update=weights)
    form = infer_module_format(torch.nn.Linear, scheme)
    library = BaseCompressor.get_value_from_registry(form.value)
    config = {
        "quant_method": "compressed-tensors",
        "format": form.value,
        "config_groups": {"group_0": json.loads(scheme.model_dump_json())},
    }

    def quantise(name: str, weight: Tensor) -> dict[str, Tensor]:
        least, most = _ranges(weight, scheme.weights)
        state = {"weight": weight}
        overall = None
        if scheme.weights.strategy == "tensor_group":
            overall = state["weight_global_scale"] = generate_gparam(weight.min(), weight.max())
        scale, zero = calculate_qparams(least, most, scheme.weights, overall)
        state["weight_scale"] = scale
        if not scheme.weights.symmetric:
            state["weight_zero_point"] = zero
        stem = name.removesuffix("weight")
        return {stem + one: held for one, held in library.compress(state, scheme).items()}

    return _by_layer(config, quantise)


def gptq() -> Way:
    """Codes of 4 bits in groups, packed as GPTQ has them."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    return _packed_by(TorchLinear, "pack_original", "gptq")


def awq() -> Way:
    """The same, packed as AWQ has them."""
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    return _packed_by(AwqTorchLinear, "pack", "awq")


def _packed_by(kind: Any, method: str, name_of_method: str) -> Way:
    """Pack with a layer of GPT-QModel: 4 bits, asymmetric, groups of 128, to the nearest code."""
    size = 128
    settings = {"bits": 4, "group_size": size, "sym": False, "desc_act": False}

    def quantise(name: str, weight: Tensor) -> dict[str, Tensor]:
        rows, columns = weight.shape
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data = weight.float()
        groups = linear.weight.data.reshape(rows, -1, size)
        least, most = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        scales = (most - least) / 15
        layer = kind(**settings, in_features=columns, out_features=rows, register_buffers=True)
        order = torch.arange(columns, dtype=torch.int32) // size
        getattr(layer, method)(linear, scales, torch.round(-least / scales), order)
        return {name.removesuffix("weight") + k: v for k, v in layer.state_dict().items()}

    return _by_layer({"quant_method": name_of_method} | settings, quantise)


def torchao() -> Way:
    """Integers of 8 bits, by torchao through transformers."""

    def quantise(base: Path, out: Path) -> None:
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        config = TorchAoConfig(Int8WeightOnlyConfig(version=2))
        model = AutoModelForCausalLM.from_pretrained(
            base, quantization_config=config, device_map="cpu", dtype=torch.bfloat16
        )
        model.save_pretrained(out)
        _copy_side_files(base, out)

    return quantise


def _ranges(weight: Tensor, settings: Any) -> tuple[Tensor, Tensor]:
    """The least and the greatest value of what shares a scale."""
    rows, columns = weight.shape
    if settings.strategy == "block":
        high, wide = settings.block_structure
        tiles = weight.reshape(rows // high, high, columns // wide, wide)
        return tiles.amin((1, 3)), tiles.amax((1, 3))
    if settings.strategy == "tensor":
        return weight.min(), weight.max()
    size = columns if settings.strategy == "channel" else settings.group_size
    groups = weight.reshape(rows, columns // size, size)
    return groups.amin(-1), groups.amax(-1)


def _by_layer(config: dict[str, Any], quantise: Callable[[str, Tensor], dict[str, Tensor]]) -> Way:
    """Put what ``quantise`` makes in the place of each linear layer's weight."""

    def whole(base: Path, out: Path) -> None:
        out.mkdir()
        made: dict[str, Tensor] = {}
        for name, weight in load_file(base / "model.safetensors").items():
            made |= quantise(name, weight) if _LINEAR.fullmatch(name) else {name: weight}
        stored = {name: one.detach().contiguous() for name, one in made.items()}
        save_file(stored, out / "model.safetensors", {"format": "pt"})
        stated = json.loads((base / "config.json").read_text()) | {"quantization_config": config}
        (out / "config.json").write_text(json.dumps(stated))
        _copy_side_files(base, out)

    return whole


def _copy_side_files(base: Path, out: Path) -> None:
    for file in base.iterdir():
        if not (out / file.name).exists():
            shutil.copy(file, out)
