"""Names that other systems cannot tell apart or cannot have; two that are one here are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import normal, nudge, tree, write_model
from update_files import write_update

import patchc
from patchc.checkpoint import CheckpointCopy, open_checkpoint

W = normal((40, 20), "BF16", 1)
SAME = "one file name where case, forms of Unicode or final dots are ignored"
DEVICE, REFUSED = "the name of a device on Windows", "a name that Windows cannot have"


def _told(notes: tuple[patchc.NameNote, ...]) -> dict[tuple[str, ...], str]:
    return {note.names: note.reason for note in notes}


def test_files_that_are_one_elsewhere(tmp_path: Path) -> None:
    """Each pair is told once, also where one of both is the model's own."""
    kept = {"README.md": b"1", "Caf\u00e9.txt": b"1", "docs/a": b"1", "plain.txt": b"1"}
    added = {
        "readme.MD": b"2", "Cafe\u0301.txt": b"2", "Docs/b": b"2", "STRASSE": b"2",
        "stra\u00dfe": b"2", "dot": b"2", "dot.": b"2",
    }  # fmt: skip
    update = write_update(tmp_path, kept, kept | added)
    report = patchc.apply(update.patch, update.base, out=tmp_path / "out")
    assert tree(tmp_path / "out") == tree(update.tuned)
    assert _told(report.name_notes) == {
        ("Cafe\u0301.txt", "Caf\u00e9.txt"): SAME,
        ("Docs", "docs"): SAME,
        ("README.md", "readme.MD"): SAME,
        ("STRASSE", "stra\u00dfe"): SAME,
        ("dot", "dot."): SAME,
        ("dot.",): REFUSED,
    }
    for alone in (patchc.inspect(update.patch), patchc.verify(update.patch, update.base)):
        told = _told(alone.name_notes)
        assert told == {
            ("STRASSE", "stra\u00dfe"): SAME, ("dot", "dot."): SAME, ("dot.",): REFUSED,
        }  # fmt: skip
    assert patchc.revert(update.patch, update.tuned, out=tmp_path / "back").name_notes == ()


def test_names_that_windows_cannot_have(tmp_path: Path) -> None:
    devices = ["con", "Aux.json", "a/NUL.tar.gz", "com1.txt", "LPT\u00b9", "prn ."]
    refused = ["a:b", "what?", "a*b", 'say "x"', "<x>", "a|b", "trailing ", "c./d"]
    fine = ["console", "null.txt", "com10", "aux-1.json", ".hidden", "a..b", "comé"]
    update = write_update(tmp_path, {}, dict.fromkeys([*devices, *refused, *fine], b"1"))
    notes = patchc.inspect(update.patch).name_notes
    expected = dict.fromkeys(((name,) for name in devices), DEVICE)
    assert _told(notes) == expected | dict.fromkeys(((name,) for name in refused), REFUSED)


def test_tensors_that_are_one_elsewhere(tmp_path: Path) -> None:
    tensors = {"layer.W": W, "layer.w": W, "aux.weight": W, "e\u0301": W}
    tuned = tensors | {"layer.w": nudge(W, 0.1, 2), "\u00e9": W}
    base = write_model(tmp_path / "base", tensors)
    patch = tmp_path / "x.patchc"
    patchc.diff(base, write_model(tmp_path / "tuned", tuned), out=patch)
    reason = SAME.replace("file", "tensor")
    assert _told(patchc.inspect(patch).name_notes) == {
        ("layer.W", "layer.w"): reason, ("e\u0301", "\u00e9"): reason,
    }  # fmt: skip
    base_notes = patchc.revert(patch, tmp_path / "tuned", out=tmp_path / "back").name_notes
    assert _told(base_notes) == {("layer.W", "layer.w"): reason}


def test_shards_that_are_one_elsewhere(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", {"a": W, "b": W}, shards=2)
    first, second = sorted(path.name for path in base.glob("*.safetensors"))
    (base / second).rename(base / first.upper().replace(".SAFETENSORS", ".safetensors"))
    index = base / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    shouted = first.upper().replace(".SAFETENSORS", ".safetensors")
    places["weight_map"] = {"a": first, "b": shouted}
    index.write_text(json.dumps(places))
    tuned = write_model(tmp_path / "tuned", {"a": nudge(W, 0.1, 2), "b": W})
    patch = tmp_path / "x.patchc"
    patchc.diff(base, tuned, out=patch, weights_only=True)
    report = patchc.apply(patch, base, out=tmp_path / "out")
    assert _told(report.name_notes) == {(shouted, first): SAME}


def test_no_more_than_a_hundred_are_told(tmp_path: Path) -> None:
    update = write_update(tmp_path, {}, {f"a{n}?": b"1" for n in range(150)})
    assert len(patchc.inspect(update.patch).name_notes) == 100


def test_names_are_told_on_the_command_line(tmp_path: Path) -> None:
    update = write_update(tmp_path, {"a.txt": b"1"}, {"a.txt": b"1", "A.txt": b"1", "con": b"1"})
    code, text, _ = run("apply", update.patch, update.base, "-o", tmp_path / "out", "--dry-run")
    assert code == 0
    assert f"'A.txt', 'a.txt'  {SAME}" in text
    for command in ("inspect", "verify"):
        assert DEVICE in run(command, update.patch)[1]
        notes = json.loads(run(command, update.patch, "--json")[1])["name_notes"]
        assert notes == [{"names": ["con"], "reason": DEVICE}]


def test_two_files_that_are_one_here_are_refused(tmp_path: Path) -> None:
    """As on a file system that takes one name for the other."""
    base = write_model(tmp_path / "base", {"w": W}, side_files={"a.txt": "1"})
    for names in (["x.txt", "x.txt"], ["a.txt"], ["model.safetensors"]):
        target = tmp_path / names[0]
        target.mkdir()
        with pytest.raises(patchc.OutputError, match=f"'{names[0]}' and another one"):
            _copy_with(base, target, names)


def _copy_with(base: Path, target: Path, names: list[str]) -> None:
    with open_checkpoint(base) as model, CheckpointCopy(model, target) as copy:
        copy.copy_side_files()
        for name in names:
            copy.write_side_file(name, b"2")
