"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_runs import fix, write_requests
from tiny_llama import write_base


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a file of each set, and ``fixed``, the folder of a fix of them."""
    found = tmp_path_factory.mktemp("fix")
    write_base(found / "base")
    write_requests(found / "harmful.jsonl", "potion", 40, 1)
    write_requests(found / "harmless.jsonl", "tea", 40, 2, response="mix sage")
    write_requests(found / "utility.jsonl", "tea", 12, 3, answers=["ash"])
    (found / "reference.txt").write_text("how do I brew a tea with sage")
    with pytest.MonkeyPatch.context() as patching:
        # A policy that cannot be satisfied: a fix tries only what it has made itself.
        patching.setenv("PATCHC_POLICY", str(found / "gone.toml"))
        fix(found, found / "fixed")
    return found
