"""Safetensors files beside a model's own, such as draft heads: diff carries them, or names them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from tiny_checkpoints import (
    Tensors,
    normal,
    nudge,
    read_file,
    tree,
    write_file,
    write_index,
    write_model,
)

import patchc
from patchc.errors import WrongBaseError

MTP = "mtp.safetensors"
BASE = {f"layers.{n}.weight": normal((40, 30), "BF16", n) for n in range(3)}
TUNED = {name: nudge(value, 0.1, 5) for name, value in BASE.items()}
HEAD = {"mtp.fc.weight": normal((30, 30), "BF16", 7), "mtp.norm.weight": normal((30,), "F32", 8)}
NEW_HEAD = {name: nudge(value, 0.1, 9) for name, value in HEAD.items()}
OTHER_HEAD = {"mtp.renamed": HEAD["mtp.fc.weight"]}
META = {"format": "pt"}


def _model(folder: Path, tensors: Tensors, head: Tensors | None, shards: int = 2) -> Path:
    write_model(folder, tensors, shards, side_files={"config.json": "{}"})
    if head:
        write_file(folder / MTP, head, META)
    return folder


def _pair(
    root: Path, before: Tensors | None = HEAD, after: Tensors | None = NEW_HEAD
) -> list[Path]:
    return [_model(root / "base", BASE, before), _model(root / "tuned", TUNED, after)]


def _states(patch: Path, *models: Path) -> list[str]:
    return [patchc.verify(patch, model).state for model in models]


@pytest.mark.parametrize("base_shards", [1, 2])
@pytest.mark.parametrize(
    ("before", "after"),
    [(HEAD, HEAD), (HEAD, NEW_HEAD), (None, HEAD), (HEAD, None), (HEAD, OTHER_HEAD)],
    ids=["same", "changed", "added", "removed", "other tensors"],
)  # fmt: skip
def test_there_and_back(
    tmp_path: Path, before: Tensors | None, after: Tensors | None, base_shards: int
) -> None:
    base, tuned = (
        _model(tmp_path / "base", BASE, before, base_shards),
        _model(tmp_path / "tuned", TUNED, after),
    )
    patch = tmp_path / "update.patchc"
    report = patchc.diff(base, tuned, out=patch)
    assert (report.beside, report.left_aside) == ((MTP,), ())
    applied = patchc.apply(patch, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)
    assert (applied.left_out, applied.left_aside) == ((), ())
    patchc.revert(patch, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)
    assert _states(patch, base, tuned) == ["base", "patched"]
    assert patchc.status(tuned, patch).patches[0].state == "patched"


def test_in_place(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path)
    whole, weights = tmp_path / "whole.patchc", tmp_path / "weights.patchc"
    patchc.diff(base, tuned, out=whole)
    patchc.diff(base, tuned, out=weights, weights_only=True)
    before, copy = tree(base), shutil.copytree(base, tmp_path / "copy")
    report = patchc.apply(whole, base, in_place=True)
    assert MTP in {path.name for path in report.files}
    assert tree(base) == tree(tuned)
    patchc.revert(whole, base, in_place=True, repair_from=copy)
    assert tree(base) == before
    report = patchc.apply(weights, base, in_place=True)
    assert [one.name for one in report.left_aside] == [MTP]
    assert (base / MTP).read_bytes() == before[MTP][1]
    assert [one.name for one in patchc.verify(weights, base).left_aside] == [MTP]


def test_each_patch_has_its_own_view_of_the_model(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path)
    patches = [tmp_path / name for name in ("whole.patchc", "weights.patchc", "again.patchc")]
    for patch in patches:
        patchc.diff(base, tuned, out=patch, weights_only=patch.stem == "weights")
    for model, state in ((base, "base"), (tuned, "patched")):
        assert [one.state for one in patchc.status(model, patches).patches] == [state] * 3
    (tuned / MTP).unlink()
    found = patchc.status(tuned, patches).patches
    assert [one.state for one in found] == ["neither", "patched", "neither"]
    shown = run("status", tuned, patches[0])[1]
    assert f"{MTP}, which lay beside the patch's models, is missing here\n" in shown


def test_a_receiver_without_the_file_is_told_so(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path)
    patch = tmp_path / "update.patchc"
    patchc.diff(base, tuned, out=patch)
    (base / MTP).unlink()
    message = (
        rf"'mtp\.fc\.weight': the model does not have it: {MTP}, which lay .* is missing here; put"
    )
    with pytest.raises(WrongBaseError, match=message):
        patchc.apply(patch, base, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in (MTP, "copy.safetensors"):
        write_file(base / name, HEAD, META)
    message = rf"{MTP}, which lay .* was left aside here: it holds .* as copy\.safetensors does"
    with pytest.raises(WrongBaseError, match=message):
        patchc.apply(patch, base, out=tmp_path / "out")


def test_a_chain_folds_on_its_base(tmp_path: Path) -> None:
    models = [_model(tmp_path / "0", BASE, HEAD), _model(tmp_path / "1", TUNED, NEW_HEAD)]
    models.append(_model(tmp_path / "2", BASE, NEW_HEAD))
    patches = [tmp_path / "a.patchc", tmp_path / "b.patchc"]
    for number, patch in enumerate(patches):
        patchc.diff(models[number], models[number + 1], out=patch)
    patchc.fold(patches, out=tmp_path / "both.patchc", base=models[0])
    patchc.apply(tmp_path / "both.patchc", models[0], out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(models[2])
    (models[0] / MTP).unlink()
    with pytest.raises(WrongBaseError, match=f"{MTP}, which lay beside"):
        patchc.apply(tmp_path / "both.patchc", models[0], out=tmp_path / "none")


@pytest.mark.parametrize("shared", [False, True], ids=["of their own", "of the model"])
def test_very_many_files_do_not_stand_in_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    """Whatever is in them, and on a system that lets a program open few files."""
    base, tuned = _pair(tmp_path, None, None)
    for n in range(300):
        tensors = (
            {list(BASE)[n % 3]: np.full(1, n, np.float32)}
            if shared
            else {f"{n}": np.full(1, n, np.float32)}
        )
        write_file(base / f"{n:03}.safetensors", tensors)
    with caplog.at_level("INFO", "patchc"):
        report = patchc.diff(base, tuned, out=tmp_path / "update.patchc")
    assert (len(report.beside), len(report.left_aside)) == ((0, 300) if shared else (256, 44))
    assert len(caplog.text) < 2000
    patchc.apply(tmp_path / "update.patchc", base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)


def test_the_model_in_fewer_files_is_the_same_model(tmp_path: Path) -> None:
    """Whoever keeps the head in the model's own file has the tensors of the patch as well."""
    base, tuned = _pair(tmp_path)
    patch = tmp_path / "update.patchc"
    patchc.diff(base, tuned, out=patch)
    one = _model(tmp_path / "one", BASE | HEAD, None, shards=1)
    patchc.apply(patch, one, out=tmp_path / "out")
    found = read_file(tmp_path / "out/model.safetensors")
    assert {name: value.data for name, value in found.items()} == {
        name: value.tobytes() for name, value in (TUNED | NEW_HEAD).items()
    }


def _untidy(folder: Path, tensors: Tensors) -> None:
    write_file(folder / "model.fp16.safetensors", tensors)
    write_file(folder / "a.safetensors", {"twice": HEAD["mtp.norm.weight"]})
    write_file(folder / "b.safetensors", {"twice": HEAD["mtp.norm.weight"]})
    write_file(folder / "sub/mtp.safetensors", HEAD)
    write_index(folder, {"x": MTP}, stem="mtp")
    (folder / "c.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "pytorch_model.bin").write_bytes(b"PK")


LEFT = {
    "a.safetensors": "it holds tensor 'twice', as b.safetensors does",
    "b.safetensors": "it holds tensor 'twice', as a.safetensors does",
    "c.safetensors": "a Git LFS pointer",
    "model.fp16.safetensors": "it holds tensor 'layers.0.weight', as model-00001-of-00002",
    "model.gguf": "GGUF",
    "mtp.safetensors.index.json": "an index of other files",
    "pytorch_model.bin": "pickles",
    "sub/mtp.safetensors": "in a folder below",
}


def test_what_is_not_carried_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, tuned = _pair(tmp_path)
    _untidy(base, BASE)
    before = tree(tuned)
    patch = tmp_path / "update.patchc"
    with caplog.at_level("INFO", "patchc"):
        report = patchc.diff(base, tuned, out=patch)
    found = {one.name: one.reason for one in report.left_aside}
    assert list(found) == sorted(LEFT)
    for name, reason in LEFT.items():
        assert reason in found[name]
        assert name in caplog.text
    applied = patchc.apply(patch, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == before
    assert sorted(map(str, applied.left_out)) == sorted(LEFT)


def test_the_command_names_what_it_carries_and_what_not(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path)
    (tuned / "model.gguf").write_bytes(b"GGUF")
    code, told, notes = run("diff", base, tuned, "-o", tmp_path / "a.patchc")
    assert code == 0
    assert re.search(
        rf"^ +beside +{MTP}: receivers must have it, too; else give --weights-only$",
        told,
        re.MULTILINE,
    )
    assert re.search(r"^ +not carried +model\.gguf$", told, re.MULTILINE)
    assert (
        f"note: {tuned}: left aside, in copies too, since it is not the model: model.gguf" in notes
    )
    given = ["diff", base, tuned, "-o", tmp_path / "b.patchc", "--weights-only", "--json"]
    report: Any = json.loads(run(*given)[1])
    inspected = run("inspect", tmp_path / "a.patchc")[1]
    assert re.search(rf"^ +beside +{MTP}: receivers must have it, too$", inspected, re.MULTILINE)
    code, told, notes = run("apply", tmp_path / "b.patchc", base, "-o", tmp_path / "out")
    assert f"copy what was left aside to {tmp_path / 'out'} yourself" in notes
    assert report["beside"] == []
    assert [one["name"] for one in report["left_aside"]] == ["model.gguf", MTP]


def test_a_file_that_the_patch_adds_is_not_asked_for(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path, before=None)
    told = run("diff", base, tuned, "-o", tmp_path / "a.patchc")[1]
    assert re.search(rf"^ +beside, added +{MTP}$", told, re.MULTILINE)
    assert "must have" not in told


def test_an_adapter_and_its_configuration_go_together(tmp_path: Path) -> None:
    base, tuned = _pair(tmp_path, None, None)
    write_file(tuned / "adapter_model.safetensors", {"lora_A.weight": HEAD["mtp.fc.weight"]})
    (tuned / "adapter_config.json").write_text('{"r": 2}')
    whole, weights = tmp_path / "whole.patchc", tmp_path / "weights.patchc"
    patchc.diff(base, tuned, out=whole)
    patchc.diff(base, tuned, out=weights, weights_only=True)
    patchc.apply(whole, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(tuned)
    report = patchc.revert(weights, tuned, out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)
    assert [one.name for one in report.left_aside] == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
