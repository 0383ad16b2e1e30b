"""Fixtures that several test modules share, and how Hypothesis runs here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from tiny_checkpoints import PatchedModel, normal, nudge, write_model

import patchc

# The first call of a kernel compiles it: a deadline would judge the machine, not the code.
settings.register_profile("patchc", deadline=None, print_blob=True)
settings.load_profile("patchc")


@pytest.fixture(scope="session", autouse=True)
def loops_compiled_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Parallel workers compile each loop once."""
    if hasattr(request.config, "workerinput"):
        from compile_once import compile_once

        folder = tmp_path_factory.getbasetemp().parent / "compile-locks"
        folder.mkdir(exist_ok=True)
        compile_once(folder)


SIDE_FILES = {
    "config.json": '{"model_type": "llama"}\n',
    "tokenizer.json": "{}",
    "assets/chat_template.jinja": "{{ messages }}",
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """A device for tensors."""
    torch = pytest.importorskip("torch")
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return name


@pytest.fixture
def patched(tmp_path: Path) -> PatchedModel:
    """Six bf16 tensors of 5000 words, two of which do not change; chunks of 4096 words."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    base = {name: normal((50, 100), "BF16", i) for i, name in enumerate(names)}
    tuned = {name: nudge(value, 0.05, 50 + i) for i, (name, value) in enumerate(base.items())}
    for i, name in enumerate(("lm_head.weight", "model.norm.weight")):
        base[name] = tuned[name] = normal((5000,), "BF16", 100 + i)
    folders = [
        write_model(tmp_path / part, tensors, shards=2, side_files=SIDE_FILES)
        for part, tensors in (("base", base), ("tuned", tuned))
    ]
    patch = tmp_path / "update.patchc"
    patchc.diff(*folders, out=patch, threads=2, chunk_bits=12)
    return PatchedModel(*folders, patch, base, tuned)
