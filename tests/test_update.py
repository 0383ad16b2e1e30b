"""Whole updates: tensors that come, go and change their kind, layouts, and files beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_checkpoints import normal, nudge, tree, write_model

import patchc


def _there_and_back(tmp_path: Path, base: Path, tuned: Path) -> None:
    patch = tmp_path / "update.patchc"
    patchc.diff(base, tuned, out=patch, chunk_bits=12)
    patchc.apply(patch, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)
    patchc.revert(patch, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)
    assert patchc.verify(patch, base).state == "base"
    assert patchc.verify(patch, tuned).state == "patched"


def test_everything_at_once(tmp_path: Path) -> None:
    same = normal((40, 200), "BF16", 1)
    base = {
        "embed.weight": normal((90, 64), "BF16", 2),
        "gone.weight": normal((70,), "F32", 3),
        "old.name": normal((5000,), "F16", 4),
        "same.weight": same,
        "shrinks.weight": normal((90, 64), "BF16", 5),
        "to_bf16.weight": normal((9000,), "F32", 6),
    }
    tuned = {
        "new.name": base["old.name"],
        "embed.weight": np.concatenate([base["embed.weight"], normal((7, 64), "BF16", 7)]),
        "added.weight": normal((70, 3), "F32", 8),
        "same.weight": nudge(same, 0.02, 9),
        "shrinks.weight": base["shrinks.weight"][:60],
        "to_bf16.weight": base["to_bf16.weight"].astype(same.dtype),
    }
    side = {"config.json": '{"vocab": 90}', "gone.txt": "x", "assets/same.json": "{}"}
    side_tuned = {"config.json": '{"vocab": 97}', "chat.jinja": "{{ }}", "assets/same.json": "{}"}
    _there_and_back(
        tmp_path,
        write_model(tmp_path / "base", base, shards=2, side_files=side),
        write_model(tmp_path / "tuned", tuned, shards=3, side_files=side_tuned),
    )
