"""Files of an update that would be run: found, named, and written only where that is allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import tree, write_model
from update_files import WEIGHTS, FileUpdate, write_update

import patchc
from patchc import Trust

ALLOWED = Trust(allow_code=True)
PLAIN = {"config.json": b'{"vocab": 90}', "gone.py": b"1", "notes.txt": b"a"}
CODE = {"config.json": b'{"vocab": 97}', "modeling.py": b"import os", "notes.txt": b"#!/bin/sh"}


@pytest.fixture
def update(tmp_path: Path) -> FileUpdate:
    return write_update(tmp_path, PLAIN, CODE)


def test_code_is_refused_and_nothing_is_written(tmp_path: Path, update: FileUpdate) -> None:
    before = tree(tmp_path)
    for dry_run in (False, True):
        with pytest.raises(patchc.CodeError, match="--allow-code") as refused:
            patchc.apply(update.patch, update.base, out=tmp_path / "out", dry_run=dry_run)
        told = str(refused.value)
        assert "'modeling.py' (Python code); 'notes.txt' (a script)" in told
        assert "config.json" not in told
    with pytest.raises(patchc.CodeError, match=r"revert .*: 'gone\.py' \(Python code\)\. "):
        patchc.revert(update.patch, update.tuned, out=tmp_path / "out")
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_what_is_allowed_is_written_and_named(tmp_path: Path, update: FileUpdate) -> None:
    for verb, model, code in (
        (patchc.apply, update.base, ["modeling.py", "notes.txt"]),
        (patchc.revert, update.tuned, ["gone.py"]),
    ):
        outs = tmp_path / "dry", tmp_path / verb.__name__
        for out in outs:
            report = verb(update.patch, model, out=out, trust=ALLOWED, dry_run=out == outs[0])
            assert [one.name for one in report.code] == code
            assert {one.written_by for one in report.code} == {verb.__name__}
            found = {one.name: one.change for one in report.written}
            assert found == {
                "config.json": "changed",
                "notes.txt": "changed",
                "gone.py": "removed" if verb is patchc.apply else "added",
                "modeling.py": "added" if verb is patchc.apply else "removed",
            }
    assert tree(tmp_path / "apply") == tree(update.tuned)
    assert tree(tmp_path / "revert") == tree(update.base)
    assert not (tmp_path / "dry").exists()


def test_a_new_file_is_run_by_nobody(tmp_path: Path) -> None:
    """Whatever the weights' modes are, and the process's."""
    update = write_update(tmp_path, {"kept.txt": b"1"}, {"kept.txt": b"2", "a/new.py": b"1"})
    (update.base / "model.safetensors").chmod(0o755)
    (update.base / "kept.txt").chmod(0o640)
    umask = os.umask(0o077)
    try:
        patchc.apply(update.patch, update.base, out=tmp_path / "out", trust=ALLOWED)
    finally:
        os.umask(umask)
    modes = {name: mode & 0o777 for name, (mode, _) in tree(tmp_path / "out").items()}
    assert modes == {"model.safetensors": 0o755, "kept.txt": 0o640, "a/new.py": 0o644}


def test_an_executable_file_of_the_model_is_code_where_it_changes(tmp_path: Path) -> None:
    update = write_update(tmp_path, {"run": b"1", "other": b"1"}, {"run": b"2", "other": b"1"})
    for name in ("run", "other"):
        (update.base / name).chmod(0o755)
    with pytest.raises(patchc.CodeError, match=r"'run' \(the model's file .* is executable\)\. "):
        patchc.apply(update.patch, update.base, out=tmp_path / "out")
    patchc.apply(update.patch, update.base, out=tmp_path / "out", trust=ALLOWED)
    assert (tmp_path / "out" / "run").stat().st_mode & 0o777 == 0o755


def test_executable_bits_that_every_file_has_tell_nothing(tmp_path: Path) -> None:
    update = write_update(tmp_path, {"config.json": b"{}"}, {"config.json": b"[]"})
    for path in update.base.iterdir():
        path.chmod(0o777)
    assert patchc.apply(update.patch, update.base, out=tmp_path / "out").code == ()


def test_nothing_is_written_through_a_link_of_the_model(tmp_path: Path) -> None:
    names = {"linked.txt": b"1", "plain.txt": b"1"}
    update = write_update(tmp_path, names, {"linked.txt": b"2", "plain.txt": b"1", "in/a": b"3"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target.txt").write_bytes(b"1")
    (update.base / "linked.txt").unlink()
    (update.base / "linked.txt").symlink_to(outside / "target.txt")
    (update.base / "in").symlink_to(outside)
    before = tree(outside)
    patchc.apply(update.patch, update.base, out=tmp_path / "out")
    assert tree(outside) == before
    assert tree(tmp_path / "out") == tree(update.tuned)
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    "name", [".patchc-journal", "a/.fix.Patchc-Lock", ".out.0123abcd.before", ".x.01234567.moves/a"]
)
def test_a_patch_brings_no_file_of_patchc_itself(tmp_path: Path, name: str) -> None:
    """Such as a journal, which later runs in place would follow."""
    for verb, files in ((patchc.apply, {name: b"1"}), (patchc.revert, {})):
        folder = tmp_path / verb.__name__
        update = write_update(folder, {name: b"1"} if verb is patchc.revert else {}, files)
        model = update.base if verb is patchc.apply else update.tuned
        with pytest.raises(patchc.PatchFormatError, match="keeps for its own files"):
            verb(update.patch, model, out=folder / "out", trust=ALLOWED)
        assert not (folder / "out").exists()


def test_inspect_and_verify_tell_code_without_a_model(update: FileUpdate) -> None:
    for report in (patchc.inspect(update.patch), patchc.verify(update.patch)):
        found = {(one.name, one.written_by, one.reason) for one in report.code.files}
        assert found == {
            ("gone.py", "revert", "Python code"),
            ("modeling.py", "apply", "Python code"),
            ("notes.txt", "apply", "a script"),
        }
        assert report.code.unchecked == ("config.json",)


def test_verify_with_a_model_reads_the_whole_of_its_settings(tmp_path: Path) -> None:
    before = b'{"auto_map": {"AutoModel": "own.Own"}}'
    after = before.replace(b"own.", b"x.")
    update = write_update(tmp_path, {"config.json": before}, {"config.json": after})
    alone = patchc.verify(update.patch).code
    assert (alone.files, alone.unchecked) == ((), ("config.json",))
    for model, verb in ((update.base, "apply"), (update.tuned, "revert")):
        report = patchc.verify(update.patch, model).code
        assert [(one.name, one.written_by) for one in report.files] == [("config.json", verb)]
        assert report.unchecked == ()


def test_what_the_patch_holds_a_part_of_is_looked_at_with_the_model(tmp_path: Path) -> None:
    """A byte makes a script of a text, and the patch has that byte alone."""
    update = write_update(tmp_path, {"notes": b"# /bin/sh\n"}, {"notes": b"#!/bin/sh\n"})
    alone = patchc.inspect(update.patch).code
    assert (alone.files, alone.unchecked) == ((), ("notes",))
    with pytest.raises(patchc.CodeError, match=r"'notes' \(a script\)"):
        patchc.apply(update.patch, update.base, out=tmp_path / "out")


def test_a_setting_that_is_added_is_seen_without_a_model(tmp_path: Path) -> None:
    before, after = b'{"a": 1, "b": "c"}', b'{"a": 1, "auto_map": {"AutoModel": "x.Y"}, "b": "c"}'
    update = write_update(tmp_path, {"config.json": before}, {"config.json": after})
    code = patchc.inspect(update.patch).code
    assert [one.name for one in code.files] == ["config.json"]
    assert code.unchecked == ()


def test_diff_tells_what_its_receivers_have_to_allow(tmp_path: Path) -> None:
    """Such as what a trainer leaves beside the weights."""
    base, tuned = (write_model(tmp_path / name, WEIGHTS) for name in ("base", "tuned"))
    (base / "gone.py").write_text("1")
    (tuned / "training_args.bin").write_bytes(b"1")
    (tuned / "trainer_state.json").write_text("{}")
    report = patchc.diff(base, tuned, out=tmp_path / "x.patchc")
    assert [(one.name, one.written_by) for one in report.code] == [
        ("training_args.bin", "apply"), ("gone.py", "revert"),
    ]  # fmt: skip
    (tuned / "training_args.bin").unlink()
    code, text, _ = run("diff", base, tuned, "-o", tmp_path / "y.patchc")
    assert code == 0
    assert "gone.py  revert" in " ".join(text.split(" "))
    assert patchc.diff(base, tuned, out=tmp_path / "z.patchc", weights_only=True).code == ()


def test_a_patch_of_weights_has_no_code(tmp_path: Path) -> None:
    update = write_update(tmp_path, {"modeling.py": b"1"}, {"modeling.py": b"1"})
    assert patchc.inspect(update.patch).code == patchc.CodeReport()
    assert patchc.apply(update.patch, update.base, out=tmp_path / "out").code == ()


def test_code_on_the_command_line(tmp_path: Path, update: FileUpdate) -> None:
    asked = ("apply", update.patch, update.base, "-o", tmp_path / "out")
    code, text, errors = run(*asked)
    assert (code, text) == (4, "")
    assert "'modeling.py' (Python code)" in " ".join(errors.split())
    for words in (("inspect", update.patch), ("verify", update.patch), (*asked, "--allow-code")):
        assert "a script" in run(*words, *(["--dry-run"] if words[0] == "apply" else []))[1]
    assert not (tmp_path / "out").exists()
    code, text, _ = run(*asked, "--allow-code")
    assert code == 0
    for line in ("removed  gone.py", "changed  config.json", "added    modeling.py"):
        assert line in text
    code, text, _ = run(
        "revert", update.patch, tmp_path / "out", "-o", tmp_path / "r", "--allow-code", "--json"
    )
    assert [one["name"] for one in json.loads(text)["code"]] == ["gone.py"]
    assert {"name": "modeling.py", "change": "removed"} in json.loads(text)["written"]
