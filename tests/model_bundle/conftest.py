"""A signed model: what the tests beside begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import run
from curve_keys_made import write_keys
from tiny_checkpoints import normal, write_model

SIDE_FILES = {"config.json": "{}", "tokenizer/vocab.txt": "tea\nsage\n", ".gitattributes": "*\n"}


@dataclass(frozen=True)
class Signed:
    """A model of two shards, keys, and its bundle."""

    model: Path
    key: Path
    public: Path
    bundle: Path

    def verify(self, *more: object, model: Path | None = None) -> tuple[int, str, str]:
        """Run verify-model; its error on one line."""
        code, out, errors = run(
            "verify-model",
            model or self.model,
            *("--signature", self.bundle, "--trusted", self.public, *more),
        )
        return code, out, " ".join(errors.split())


@pytest.fixture
def unsigned(tmp_path: Path) -> Signed:
    tensors = {"a.weight": normal((8, 8), "BF16", 1), "b.weight": normal((8, 8), "BF16", 2)}
    model = write_model(tmp_path / "model", tensors, shards=2, side_files=SIDE_FILES)
    key = write_keys(tmp_path / "keys", "release")
    return Signed(model, key, key.with_name("release.pub"), tmp_path / "model.sig")


@pytest.fixture
def signed(unsigned: Signed) -> Signed:
    code, _, errors = run(
        "sign-model", unsigned.model, "--key", unsigned.key, "-o", unsigned.bundle
    )
    assert code == 0, errors
    return unsigned
