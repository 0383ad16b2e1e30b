"""What the core needs at run time, and which names an installation takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import PatchedModel, write_file

import patchc

CORE = """
import sys

BLOCKED = {"torch", "triton", "transformers", "accelerate", "bitsandbytes"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Blocker())

import json
import patchc

verb, arguments, options = json.loads(sys.argv[1])
getattr(patchc, verb)(*arguments, **options)
assert not BLOCKED & set(sys.modules)
print("done")
"""


def _python(code: str, *arguments: str, cwd: Path) -> str:
    """Run code in a fresh interpreter, away from the source tree."""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    "verb",
    ["build", "diff", "fold", "apply", "revert", "verify", "inspect", "report", "evaluate"],
)
def test_core_verbs_import_neither_torch_nor_transformers(
    tmp_path: Path, patched: PatchedModel, verb: str
) -> None:
    base, tuned, patch = str(patched.base), str(patched.tuned), str(patched.patch)
    ones = {"model.layers.0.mlp.up_proj.weight": np.ones((50, 100), np.float32)}
    scores = str(write_file(tmp_path / "scores.safetensors", ones))
    out = {"out": str(tmp_path / "out")}
    back = str(tmp_path / "back.patchc")
    patchc.diff(patched.tuned, patched.base, out=back, chunk_bits=12)
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "brew a tea", "reply": "I cannot"}\n')
    replies = {"harmful": str(asked), "harmless": str(asked), "generations": [str(asked)]}
    parts = {"se": tuned, "osm": tuned, "se_scores": scores, "osm_scores": scores}
    calls: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "build": ([base], parts | out),
        "diff": ([base, tuned], out),
        "fold": ([[patch, back]], out | {"base": base}),
        "apply": ([patch, base], out),
        "revert": ([patch, tuned], out),
        "verify": ([patch, base], {}),
        "inspect": ([patch], {}),
        "report": ([patch], out),
        "evaluate": ([], replies),
    }
    assert _python(CORE, json.dumps([verb, *calls[verb]]), cwd=tmp_path) == "done\n"


def test_the_blocker_blocks(tmp_path: Path) -> None:
    """The proof above is worth something only if an import of torch would have failed."""
    code = CORE.replace("import patchc", "import torch")
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "torch was imported" in finished.stderr


@pytest.mark.parametrize("module", ["patchc", "patchc.cli.main", "patchc.torch"])
def test_importing_the_package_or_the_command_loads_nothing_heavy(
    tmp_path: Path, module: str
) -> None:
    heavy = {"numpy", "numba", "safetensors", "torch", "transformers"}
    code = f"import sys, {module}; print(sorted(sys.modules.keys() & {heavy}))"
    assert _python(code, cwd=tmp_path) == "[]\n"


def test_the_program_starts_with_little(tmp_path: Path) -> None:
    """Before it is ready for interrupts, nothing is loaded that takes time."""
    root = str(Path(patchc.__file__).parents[1])
    code = f"""
import sys
sys.path.insert(0, {root!r})
import patchc.cli.entry
print(sorted(name for name in sys.modules if name.startswith("patchc")))
print(sorted(sys.modules.keys() & {{"typing", "re", "contextlib", "pathlib", "inspect"}}))
"""
    command = [sys.executable, "-S", "-P", "-c", code]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines() == [
        "['patchc', 'patchc.cli', 'patchc.cli.entry', 'patchc.version']",
        "[]",
    ]


def test_a_command_loads_no_other(tmp_path: Path) -> None:
    code = """
import sys
from patchc.cli.main import app
commands = {f"patchc.cli.{name}" for name in ("apply", "build", "derive", "revert", "sweep")}
print(sorted(commands & sys.modules.keys()))
app(["apply", "nowhere.patchc", "nowhere", "-o", "out"], standalone_mode=False)
print(sorted(commands & sys.modules.keys()))
"""
    assert _python(code, cwd=tmp_path) == "[]\n['patchc.cli.apply']\n"


@pytest.mark.parametrize("verb", ["apply", "revert", "verify", "inspect", "diff", "build", "fold"])
def test_numba_waits_for_the_first_loop(tmp_path: Path, verb: str) -> None:
    code = f"import sys, patchc.verbs.{verb}; print('numba' in sys.modules)"
    assert _python(code, cwd=tmp_path) == "False\n"


def test_every_public_name_resolves(tmp_path: Path) -> None:
    code = """
import patchc
for name in patchc.__all__:
    assert getattr(patchc, name) is not None
try:
    patchc.no_such_name
except AttributeError as error:
    print(error)
"""
    expected = "module 'patchc' has no attribute 'no_such_name'\n"
    assert _python(code, cwd=tmp_path) == expected


def test_no_global_kernels_or_formats_after_installation(tmp_path: Path) -> None:
    """Other packages probe for modules of these names and would import ours by mistake."""
    code = """
import importlib.util
import patchc
import patchc.kernels.ulp_steps.cpu, patchc.formats.container.layout
print([importlib.util.find_spec(name) for name in ("kernels", "formats")])
"""
    assert _python(code, cwd=tmp_path) == "[None, None]\n"
