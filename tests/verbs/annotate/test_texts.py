"""Names and notes in patches: nothing else changes, and what is taken out leaves the old file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from command_line import run
from patch_chains import chain_of
from tiny_checkpoints import PatchedModel, names_of, normal, nudge, tree, write_model

import patchc
from patchc import Annotation
from patchc.errors import OutputError, PatchFormatError, StorageError, UsageError
from patchc.formats import write_with_metadata

NAME, NOTE = "Potion shop, α version", "Refuses potions.\nMeasured on 3 sets; see the report."


@pytest.fixture(params=["rice", "conditional", "additive", "update"])
def patch(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A patch of each kind; its base lies beside it as ``base``."""
    out = tmp_path / "plain.patchc"
    if request.param == "additive":
        patchc.build(**small_inputs().write(tmp_path), out=out, values="additive")
        return out
    weights = {"up.weight": normal((50, 100), "BF16", 1)}
    tuned = {name: nudge(value, 0.3, 2) for name, value in weights.items()}
    base = write_model(tmp_path / "base", weights, side_files={"config.json": "{}"})
    config = '{"a": 1}' if request.param == "update" else "{}"
    result = write_model(tmp_path / "result", tuned, side_files={"config.json": config})
    patchc.diff(base, result, out=out, codec="rice" if request.param == "rice" else "auto")
    return out


def annotated(patch: Path, **more: Any) -> Path:
    out = patch.with_name("named.patchc")
    patchc.annotate(patch, out=out, **({"name": NAME, "note": NOTE} | more))
    return out


def test_only_the_metadata_and_the_root_change(patch: Path) -> None:
    before = patch.read_bytes()
    report = patchc.annotate(patch, name=NAME, note=NOTE, out=patch.with_name("named.patchc"))
    assert patch.read_bytes() == before
    old, new = (patchc.inspect(path) for path in (patch, report.out))
    assert (report.old_root, report.root, report.size) == (old.root, new.root, new.size)
    assert report.root != report.old_root
    assert report.annotation == new.annotation == Annotation(NAME, NOTE)
    assert old.annotation == Annotation()
    assert new.metadata == old.metadata | {"annotation": {"name": NAME, "note": NOTE}}
    with patchc.open_patch(patch) as opened:
        end = opened.trailer.metadata_offset
    assert report.out.read_bytes()[:end] == before[:end]


def test_it_applies_verifies_and_reverts_as_before(patch: Path, tmp_path: Path) -> None:
    named = annotated(patch)
    assert patchc.verify(named).state == "intact"
    base = tmp_path / "base"
    for one in (patch, named):
        patchc.apply(one, base, out=tmp_path / f"{one.stem}-applied")
    results = [tree(tmp_path / f"{stem}-applied") for stem in ("plain", "named")]
    assert results[0] == results[1]
    with patchc.open_patch(patch) as opened:
        if opened.additive:
            return
    assert patchc.verify(named, tmp_path / "plain-applied").state == "patched"
    patchc.revert(named, tmp_path / "plain-applied", out=tmp_path / "reverted")
    assert tree(tmp_path / "reverted") == tree(base)


def test_what_is_removed_leaves_the_file_that_was(patch: Path) -> None:
    named = annotated(patch)
    renamed, bare = patch.with_name("renamed.patchc"), patch.with_name("bare.patchc")
    patchc.annotate(named, name="other", out=renamed)
    assert patchc.inspect(renamed).annotation == Annotation("other", NOTE)
    patchc.annotate(renamed, note="", out=bare)
    assert patchc.inspect(bare).annotation == Annotation("other")
    last = patch.with_name("last.patchc")
    assert patchc.annotate(bare, name="", out=last).root == patchc.inspect(patch).root
    assert last.read_bytes() == patch.read_bytes()


def test_a_fold_says_which_files_it_took(tmp_path: Path) -> None:
    weights = [{"up.weight": normal((50, 100), "BF16", 1)}]
    for number in range(3):
        weights.append({"up.weight": nudge(weights[-1]["up.weight"], 0.1, number)})
    chain = chain_of(tmp_path, weights)
    named = annotated(chain.patches[0])
    patchc.fold([named, chain.patches[1]], out=tmp_path / "two.patchc")
    folded = patchc.annotate(tmp_path / "two.patchc", name="Two", out=tmp_path / "both.patchc")
    patchc.fold([folded.out, chain.patches[2]], out=tmp_path / "three.patchc")
    report = patchc.inspect(tmp_path / "three.patchc")
    roots = [patchc.inspect(path).root for path in (named, *chain.patches[1:])]
    assert [link["root"] for link in report.folded] == roots
    assert report.annotation == Annotation()


def test_a_run_in_place_is_ended_by_the_file_that_began_it(patched: PatchedModel) -> None:
    named = annotated(patched.patch)
    model = shutil.copytree(patched.base, patched.base.with_name("model"))
    patchc.apply(named, model, in_place=True)
    assert tree(model) == tree(patched.tuned)
    patchc.revert(patched.patch, model, in_place=True)
    assert tree(model) == tree(patched.base)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "nothing to change; give --name"),
        ({"name": "x" * 201}, "one line of at most 200"),
        ({"name": "two\nlines"}, "one line of at most 200"),
        ({"name": "\x1b[31m"}, "one line of at most 200"),
        ({"note": "x" * 10_001}, "at most 10,000"),
        ({"note": "a\tb"}, "printable characters and line ends"),
        ({"name": "\udcff"}, "printable"),
    ],
)
def test_texts_that_cannot_be_stored(
    patched: PatchedModel, asked: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        patchc.annotate(patched.patch, out=tmp_path / "out.patchc", **asked)
    assert not (tmp_path / "out.patchc").exists()


def test_longest_texts_fit(patched: PatchedModel) -> None:
    named = annotated(patched.patch, name="é" * 200, note="\n".join(["é" * 99] * 100))
    assert patchc.inspect(named).annotation == Annotation("é" * 200, "\n".join(["é" * 99] * 100))


def test_outputs_that_are_in_the_way(patched: PatchedModel, tmp_path: Path) -> None:
    before = patched.patch.read_bytes()
    for out, message in ((patched.patch, "is the input itself"), (tmp_path, "contains the input")):
        with pytest.raises(OutputError, match=message):
            patchc.annotate(patched.patch, name="x", out=out)
    (tmp_path / "there.patchc").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        patchc.annotate(patched.patch, name="x", out=tmp_path / "there.patchc")
    assert (patched.patch.read_bytes(), (tmp_path / "there.patchc").read_text()) == (before, "mine")


def test_an_error_leaves_nothing(
    patched: PatchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = names_of(tmp_path)
    monkeypatch.setattr("patchc.formats.container.sealing.seal", full)
    with pytest.raises(StorageError, match="the disk is full"):
        annotated(patched.patch)
    assert names_of(tmp_path) == before


def test_a_damaged_patch_is_not_annotated(patched: PatchedModel, tmp_path: Path) -> None:
    content = bytearray(patched.patch.read_bytes())
    content[30] ^= 1
    patched.patch.write_bytes(content)
    with pytest.raises(PatchFormatError, match="damaged"):
        patchc.annotate(patched.patch, name="x", out=tmp_path / "out.patchc")
    assert not (tmp_path / "out.patchc").exists()


@pytest.mark.parametrize(
    "content",
    [
        "text", [], {"name": 7, "note": ["x"], "results": "x"}, {"name": "two\nlines"},
        {"note": "\x1b[31m", "results": {"source": "evaluate"}}, {"name": "x" * 201},
        {"results": {"source": "fix", "file": "x", "judge": "", "data": {}, "models": []}},
    ],
)  # fmt: skip
def test_a_stranger_s_annotation_is_left_out(
    patched: PatchedModel, tmp_path: Path, content: Any
) -> None:
    forged = tmp_path / "forged.patchc"
    with patchc.open_patch(patched.patch) as opened, forged.open("wb") as file:
        write_with_metadata(opened, file, opened.metadata | {"annotation": content})
    assert patchc.inspect(forged).annotation == Annotation()
    code, out, _ = run("inspect", forged)
    assert (code, "\x1b" in out) == (0, False)


def test_the_command(patched: PatchedModel, tmp_path: Path) -> None:
    out = tmp_path / "named.patchc"
    words = "--name", NAME, "--note", NOTE, "-o", out
    code, told, err = run("annotate", patched.patch, *words)
    assert (code, err) == (0, "")
    roots = [patchc.inspect(path).root for path in (patched.patch, out)]
    assert [line.split()[-1] for line in told.splitlines() if " root  " in line] == roots
    assert told.splitlines()[-1] == f"next: patchc inspect {out}"
    code, told, _ = run("inspect", out)
    lines = [" ".join(line.split()) for line in told.splitlines()]
    first, second = NOTE.splitlines()
    assert lines[1:4] == [f"name {NAME}", f"note {first}", f"note 2 {second}"]
    code, told, _ = run("annotate", out, "--name", "", "-o", tmp_path / "bare.patchc", "--json")
    content = json.loads(told)
    assert content["annotation"] == {"name": "", "note": NOTE, "results": None}
    assert (content["old_root"], content["out"]) == (roots[1], str(tmp_path / "bare.patchc"))
    assert run("annotate", out, "-o", tmp_path / "no.patchc")[0] == 2
