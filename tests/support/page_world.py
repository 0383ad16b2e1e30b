"""The tiny models, requests and patches that the documentation's commands name.

A page's commands run in a folder of their own with these:

- ``models/chat``: the model to fix; ``models/chat-v2``: its next release; ``models/base``: a copy
  of it; ``models/a``, ``models/b``: fine-tunes of it; ``models/chat-tuned-further``: a descendant;
  ``models/compiled``: a fine-tune whose tensors a compiled module has named
- ``answered.jsonl``, ``harmful.jsonl``, ``harmless.jsonl`` (with a ``prompt``, ``response`` and
  ``kind``), ``questions.jsonl`` (``prompt``, ``answer``), ``reference.txt``; in ``dev`` and
  ``test`` a half of the requests each
- ``hub``: a home of the hub; its cache has ``org/chat``, which is models/chat, and at its tag
  ``v2`` models/chat-v2
- ``work/se``, ``work/osm``: what ``derive`` writes of the pair; ``fix.toml``: a recipe
- ``fix.patchc``: changes models/chat; ``update.patchc``: models/chat to models/chat-v2;
  ``first.patchc``, ``second.patchc``, ``third.patchc``: a chain that begins with models/chat

What a page writes itself is not there before.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hub_caches import OTHER, write_cached
from potion_chat import write_chat, write_requests
from safetensors.torch import load_file, save_file

import patchc
from patchc.derivation.derive_options import DeriveOptions, TuneOptions

_WRITTEN = re.compile(r"""(?:(?:-o|--out)[ =]|\b(?:out|out_path)=)["']?$""")
_RECIPE = """method = "safepatching"
top_se = 0.1
top_osm = 0.1
alpha = 6.0
beta = 5.4
"""


def write_world(folder: Path) -> None:
    """Write everything that pages find."""
    models = folder / "models"
    chat = write_chat(models / "chat")
    shutil.copytree(chat, models / "base")
    _write_changed(chat, models / "chat-v2", 1, "proj")
    _write_changed(chat, models / "chat-tuned-further", 2, "layers.0.mlp")
    for seed, name in ((3, "a"), (4, "b")):
        _write_changed(chat, models / name, seed, "proj")
    _write_changed(chat, models / "compiled", 5, "", "_orig_mod.")
    cache = folder / "hub/hub"
    write_cached(cache, "org/chat", chat)
    write_cached(cache, "org/chat", models / "chat-v2", OTHER, "v2")
    write_requests(folder)
    shutil.copyfile(folder / "harmful.jsonl", folder / "answered.jsonl")
    write_requests(folder / "dev", slice(None, None, 2))
    write_requests(folder / "test", slice(1, None, 2))
    shutil.copyfile(folder / "harmful.jsonl", folder / "answered.jsonl")
    (folder / "reference.txt").write_text("Name the capital of France . Mix tea with sage .\n" * 8)
    (folder / "fix.toml").write_text(_RECIPE)
    _write_patches(folder, chat)


def copy_world(made: Path, folder: Path, commands: str) -> None:
    """Copy the files to a page's folder, except those that its commands write first."""
    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder)
        if _is_written_first(name, commands):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_written_first(name: Path, commands: str) -> bool:
    """Whether the first command that names the path, or a folder around it, writes it."""
    names = [str(name), *(str(parent) for parent in name.parents if parent.name)]
    written = [at for one in names for at in _mentions(one, commands, exact=True) if at < 0]
    read = [at for at in _mentions(str(name), commands, exact=False) if at >= 0]
    return bool(written) and -max(written) <= min(read, default=len(commands))


def _mentions(name: str, commands: str, *, exact: bool) -> Iterable[int]:
    """Where a path is named; below zero where it is an output."""
    after = r"/?(?![\w./-])" if exact else r"(?![\w.-])"
    for found in re.finditer(rf"(?<![\w./-]){re.escape(name)}{after}", commands):
        is_output = _WRITTEN.search(commands[: found.start()]) is not None
        yield -found.start() if is_output else found.start()


def _write_changed(chat: Path, folder: Path, seed: int, part: str, prefix: str = "") -> None:
    """A model whose tensors of a kind have moved a little; all may have a prefix."""
    shutil.copytree(chat, folder)
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if part in name:
            noise = torch.randn(value.shape, generator=generator)
            moved = torch.rand(value.shape, generator=generator) < 0.1
            weights[name] = torch.where(moved, value.float() * (1 + 0.02 * noise), value).bfloat16()
    weights = {f"{prefix}{name}": value for name, value in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_patches(folder: Path, chat: Path) -> None:
    tuning = TuneOptions(learning_rate=2e-5, steps=2, batch_size=4)
    options = DeriveOptions(se=tuning, osm=tuning, score_samples=4, device="cpu")
    patchc.derive(chat, folder / "harmful.jsonl", folder / "work", options=options)
    parts = {"se": folder / "work/se", "osm": folder / "work/osm"}
    recipe = patchc.read_recipe(folder / "fix.toml")
    patchc.build(chat, **parts, out=folder / "fix.patchc", recipe=recipe)
    patchc.diff(chat, folder / "models/chat-v2", out=folder / "update.patchc")
    chain = [folder / "models" / name for name in ("chat", "a", "b", "chat-v2")]
    for name, before, after in zip(("first", "second", "third"), chain, chain[1:], strict=False):
        patchc.diff(before, after, out=folder / f"{name}.patchc", codec="rice")
