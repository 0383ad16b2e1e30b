"""Rules under which two tensors swap their names: there and back, told apart, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import normal, nudge, read_model, tree, write_model

import patchc
from patchc.errors import UsageError

SWAP = ["^a$=swap", "^b$=a", "^swap$=b"]


def _swapped(folder: Path, other: Any) -> tuple[Path, Path]:
    one = normal((50, 300), "BF16", 1)
    base = write_model(folder / "base", {"a": one, "b": other})
    return base, write_model(
        folder / "tuned", {"b": nudge(one, 0.01, 3), "a": nudge(other, 0.01, 4)}
    )


@pytest.mark.parametrize("other", [normal((50, 300), "F32", 2), normal((60, 300), "BF16", 2)])
def test_two_tensors_swap_their_names(tmp_path: Path, other: Any) -> None:
    base, tuned = _swapped(tmp_path, other)
    report = patchc.diff(base, tuned, out=tmp_path / "p.patchc", rename=SWAP)
    assert report.entries < 2000
    patchc.apply(report.out, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)
    patchc.revert(report.out, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)
    found = patchc.inspect(report.out).update
    assert found is not None
    assert found.renamed == (("a", "b"), ("b", "a"))
    assert (found.added, found.removed, found.cast, found.resized) == ((), (), (), ())


def test_a_swap_that_leaves_no_trace_in_names_and_shapes_is_for_weights_alone(
    tmp_path: Path,
) -> None:
    """Both models look alike, so that a reader could not tell which of them it has."""
    base, tuned = _swapped(tmp_path, normal((50, 300), "BF16", 2))
    given: dict[str, Any] = {"out": tmp_path / "p.patchc", "rename": SWAP}
    with pytest.raises(UsageError, match="leave the rules out, or give --weights-only"):
        patchc.diff(base, tuned, **given)
    assert not given["out"].exists()
    assert patchc.diff(base, tuned, **given, weights_only=True).entries < 1000
    patchc.apply(given["out"], base, out=tmp_path / "applied")
    found, expected = read_model(tmp_path / "applied"), read_model(tuned)
    assert found == {"a": expected["b"], "b": expected["a"]}
    same = patchc.diff(base, tuned, out=tmp_path / "q.patchc", rename="^a=a").out
    patchc.revert(same, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)
