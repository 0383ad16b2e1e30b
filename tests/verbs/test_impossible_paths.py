"""Paths that no file of the system can have: each verb names them in an error of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_checkpoints import PatchedModel

import patchc
from patchc.errors import PatchcError, UsageError

Call = Callable[[PatchedModel, str], object]

CALLS: list[Call] = [
    lambda _, path: patchc.open_patch(path),
    lambda _, path: patchc.read_recipe(path),
    lambda at, path: patchc.verify(at.patch, path),
    lambda at, path: patchc.verify(at.patch, trust=patchc.Trust(keys=[path])),
    lambda at, path: patchc.apply(at.patch, path, out=at.base.parent / "out"),
    lambda at, path: patchc.apply(at.patch, at.base, out=path),
    lambda at, path: patchc.apply(at.patch, at.base, in_place=True, repair_from=path),
    lambda at, path: patchc.diff(at.base, path, out=at.base.parent / "out"),
    lambda at, path: patchc.fold([at.patch, path], out=at.base.parent / "out"),
    lambda at, path: patchc.annotate(at.patch, out=path, name="n"),
    lambda at, path: patchc.report(at.patch, out=path),
    lambda at, path: patchc.report(at.patch, path, out=at.base.parent / "out"),
    lambda at, path: patchc.landscape(
        at.base, harmful=path, harmless=path, out=at.base.parent / "out"
    ),
    lambda at, path: patchc.sign(at.patch, key=path, out=at.base.parent / "out"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("path", ["x\0", "\0", "x\ud800", "x" * 5000])
def test_a_path_that_no_file_has(patched: PatchedModel, call: Call, path: str) -> None:
    with pytest.raises(PatchcError, match=r"NUL byte|too long"):
        call(patched, path)


MODELS_AND_PATCHES: list[Call] = [
    lambda _, path: patchc.open_patch(path),
    lambda _, path: patchc.verify(path),
    lambda at, path: patchc.verify(at.patch, path),
    lambda at, path: patchc.apply(at.patch, path, in_place=True),
    lambda at, path: patchc.apply(path, at.base, in_place=True),
    lambda at, path: patchc.revert(at.patch, model=path, in_place=True),
    lambda at, path: patchc.diff(at.base, path, out=at.base.parent / "out"),
    lambda at, path: patchc.build(
        at.base, recipe="ties", tuned=[at.base, path], out=at.base.parent / "out"
    ),
    lambda at, path: patchc.fold([at.patch, path], out=at.base.parent / "out"),
    lambda at, path: patchc.status(path, at.patch),
]


@pytest.mark.parametrize("call", MODELS_AND_PATCHES)
def test_an_empty_text_does_not_stand_for_the_working_folder(
    patched: PatchedModel, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(patched.base)
    with pytest.raises(UsageError, match="a path is empty; name"):
        call(patched, "")


def test_a_dot_stands_for_the_working_folder(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(patched.base)
    assert patchc.verify(patched.patch, ".").state == "base"
