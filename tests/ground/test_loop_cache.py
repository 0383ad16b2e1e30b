"""What a loop's digest covers, and what becomes of kept machine code when something changes."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from patchc.jit import allocating_loop, inlined, loop, not_kept
from patchc.loop_cache import function_digest

SCALED = """
def scaled(value):
    return value * SCALE
"""


def function_of(source: str, **taken: Any) -> Callable[..., Any]:
    """The last function that a source defines, in a module that has these globals."""
    # Without a name it would be one of Python's builtins, where libraries keep what no file can.
    namespace = {"__name__": __name__, **taken}
    exec(dedent(source), namespace)
    return list(namespace.values())[-1]


def digest_of(source: str, **taken: Any) -> str:
    return function_digest(function_of(source, **taken))


def chain(scale: Any) -> str:
    """The digest of a loop that calls a helper, which calls another, which takes a constant."""
    far = inlined(function_of(SCALED, SCALE=scale))
    near = loop(function_of("def near(value):\n    return far(value)", far=far))
    return digest_of("def run(value):\n    return near(value) + 1", near=near)


class Bounds(NamedTuple):
    low: int
    high: int


class Swapped(NamedTuple):
    high: int
    low: int


Swapped.__qualname__ = Bounds.__qualname__


@pytest.mark.parametrize(
    "other",
    [3, 2.0, True, np.int64(2), np.uint32(2), (2,), "2", None, np.arange(2), Bounds, Bounds(2, 2)],
)
def test_a_constant_two_calls_away_is_in_the_digest(other: Any) -> None:
    assert chain(2) == chain(2)
    assert chain(other) == chain(other)
    assert chain(2) != chain(other)


def test_arrays_count_by_shape_type_and_content() -> None:
    arrays = [np.arange(4), np.arange(4)[::-1], np.arange(4, dtype=np.int32), np.eye(2, dtype=int)]
    assert len({chain(array) for array in arrays}) == len(arrays)


def test_named_tuples_count_by_the_order_of_their_fields() -> None:
    assert chain(Bounds) != chain(Swapped)


def test_code_of_a_helper_two_calls_away_is_in_the_digest() -> None:
    def run(body: str) -> str:
        far = function_of(f"def far(value):\n    return {body}")
        near = function_of("def near(value):\n    return far(value)", far=far)
        return digest_of("def run(value):\n    return near(value)", near=near)

    assert run("value + 1") == run("value + 1")
    assert len({run(body) for body in ("value + 1", "value + 2", "value - 1", "-value")}) == 4


def test_how_a_helper_is_compiled_is_in_the_digest() -> None:
    far = function_of("def far(value):\n    return value")
    run = "def run(value):\n    return far(value)"
    kinds = [inlined, loop, allocating_loop]
    assert len({digest_of(run, far=kind(far)) for kind in kinds}) == len(kinds)


def test_text_that_is_no_code_is_not_in_the_digest() -> None:
    plain = digest_of('def run(value):\n    """Text."""\n    return value * SCALE', SCALE=2)
    moved = '\n\n\ndef run(value):\n    """What it does."""\n    # why\n    return value * SCALE'
    assert digest_of(moved, SCALE=2, OTHER=5) == plain


def test_what_has_no_digest_is_refused() -> None:
    with pytest.raises(TypeError, match="no digest"):
        digest_of("def run(value):\n    return SCALE", SCALE=object())


def test_constants_that_later_pythons_fold_have_a_digest() -> None:
    """Python 3.14 keeps constant slices in a function's code."""
    function = function_of("def run(value):\n    return value")
    code, digests = function.__code__, set()
    for constant in (slice(1, None), slice(2, None), frozenset({1}), frozenset({1, 2}), ...):
        function.__code__ = code.replace(co_consts=(*code.co_consts, constant))
        function_digest.cache_clear()
        digests.add(function_digest(function))
    assert len(digests) == 5


def test_every_loop_has_a_digest() -> None:
    loops = {}
    for name in ("patchc.kernels", "patchc.formats"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith(".triton"):
                loops |= vars(importlib.import_module(module.name))
    loops = {name: value for name, value in loops.items() if hasattr(value, "options")}
    assert len(loops) > 100
    for value in loops.values():
        assert function_digest(value.__wrapped__)


LOOP = """
import numpy as np
from patchc.jit import loop
from sizes.limits import LIMIT, Span

@loop
def add(values, span):
    return values[span.first] + LIMIT
"""
LIMITS = """
from typing import NamedTuple

LIMIT = 5

class Span(NamedTuple):
    first: int
    last: int
"""
RUN = """
import numpy as np
from loops.sums.add import Span, add

result = add(np.arange(10), Span(first=1, last=2))
print(result, sum(add.stats.cache_hits.values()), sum(add.stats.cache_misses.values()))
"""


class Sources:
    """Files of loops in folders that nothing knows of, each run in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.write("loops/sums/add.py", LOOP)
        self.write("sizes/limits.py", LIMITS)
        self.write("sizes/unrelated.py", "OTHER = 1\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self) -> str:
        """The result, how often the loop was found kept, and how often not."""
        variables = {"PATCHC_CACHE": str(self.kept), "PYTHONDONTWRITEBYTECODE": "1"}
        paths = f"{self.folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env=os.environ | variables | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def files(self) -> list[Path]:
        return [path for path in self.kept.rglob("*") if path.is_file()]


def test_machine_code_follows_its_sources(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    assert sources.run() == "6 0 1"
    assert sources.run() == "6 1 0"
    sources.write("sizes/unrelated.py", "OTHER = 2\n")
    sources.write("loops/sums/add.py", "# moved\n\n" + LOOP)
    assert sources.run() == "6 1 0"
    sources.write("sizes/limits.py", LIMITS.replace("5", "50"))
    assert sources.run() == "51 0 1"
    assert len(sources.files()) == 2, "another installation may use what the earlier version left"
    for path in sources.files():
        os.utime(path, (0, 0))
    sources.write("sizes/limits.py", LIMITS.replace("5", "60"))
    assert sources.run() == "61 0 1"
    assert len(sources.files()) == 1, "of what is not used for long, nothing stays"
    fields = "    first: int\n", "    last: int\n"
    sources.write("sizes/limits.py", LIMITS.replace("".join(fields), "".join(fields[::-1])))
    assert sources.run() == "6 0 1"


def test_code_for_a_class_that_moved_counts_as_missing(tmp_path: Path) -> None:
    """The loop does not name the class of its argument, so only the types tell."""
    sources = Sources(tmp_path)
    assert sources.run() == "6 0 1"
    (tmp_path / "sizes/limits.py").rename(tmp_path / "sizes/bounds.py")
    sources.write("loops/sums/add.py", LOOP.replace("sizes.limits", "sizes.bounds"))
    assert sources.run() == "6 0 1"
    assert sources.run() == "6 1 0"


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    assert sources.run() == "6 0 1"
    (kept,) = sources.files()
    content = kept.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-9] + bytes(9)):
        kept.write_bytes(damaged)
        assert sources.run() == "6 0 1"
        assert sources.run() == "6 1 0"


def test_a_loop_that_loops_call_has_one_version_for_all_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATCHC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # what was kept needs no part
    near = loop(function_of("def near(value, scale):\n    return value * scale"))
    run = loop(
        function_of("def run(value):\n    return near(value, 2) + near(value, 3)", near=near)
    )
    assert run(4) == 20
    assert len(near._part.signatures) == 1
    assert near(4, 2) == 8, "Python can call it as well"


def test_an_interrupt_while_the_cache_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker thread loads it with the first loop, and the main thread asks at an interrupt."""
    monkeypatch.setitem(sys.modules, "patchc.loop_cache", ModuleType("patchc.loop_cache"))
    assert not_kept() == ""
