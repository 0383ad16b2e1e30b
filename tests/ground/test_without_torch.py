"""What derive, evaluate, landscape and the demo do in an installation without their extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import normal, write_model

CODE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())

import patchc
from patchc.demo import play

verb, *arguments = sys.argv[1:]
try:
    if verb == "evaluate":
        model, data, _out = arguments
        patchc.evaluate([model], harmful=data, harmless=data)
    elif verb == "landscape":
        model, data, out = arguments
        patchc.landscape(model, harmful=data, harmless=data, out=out)
    else:
        {"derive": patchc.derive, "demo": play}[verb](*arguments)
except patchc.PatchcError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("verb", ["derive", "evaluate", "landscape", "demo"])
def test_the_missing_package_and_the_remedy_are_named(tmp_path: Path, verb: str) -> None:
    weights = {"model.layers.0.mlp.up_proj.weight": normal((4, 4), "BF16", 0)}
    base = write_model(tmp_path / "base", weights)
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n')
    arguments = [tmp_path / "work"] if verb == "demo" else [base, data, tmp_path / "work"]
    finished = subprocess.run(
        [sys.executable, "-P", "-c", CODE, verb, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith("MissingExtraError")
    assert "pip install " in finished.stdout
    assert "[derive]" in finished.stdout
    assert not (tmp_path / "work").exists()
