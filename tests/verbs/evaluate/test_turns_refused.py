"""Patches that do not follow one another, or may not be used; and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from one_word_models import OPTIONS, Spoken

import patchc
from patchc.errors import (
    AlreadyPatchedError,
    CodeError,
    MismatchError,
    SignatureError,
    UsageError,
    WrongBaseError,
)


@pytest.mark.parametrize(
    ("turns", "more", "error", "told"),
    [
        ("ac", {}, MismatchError, r"c\.patchc does not follow .*a\.patchc"),
        ("ba", {}, MismatchError, r"a\.patchc does not follow .*b\.patchc"),
        ("b", {}, WrongBaseError, "base"),
        ("aa", {}, UsageError, r"turns: .*a\.patchc is given twice; give it once"),
        ("ab", {"models": ["base", "1"]}, UsageError, "turns take one model, and there are 2"),
        ("ab", {"models": "1"}, AlreadyPatchedError, "a.patchc"),
        ("a", {"patch": "a"}, UsageError, "turns and patch exclude each other"),
        ("", {"together": "a"}, UsageError, "together is compared with turns"),
        ("a", {"together": "b"}, WrongBaseError, "base"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_asked(
    spoken: Spoken, tmp_path: Path, turns: str, more: dict[str, Any],
    error: type[patchc.PatchcError], told: str,
) -> None:  # fmt: skip
    paths = {path.stem: path for path in spoken.patches}
    given = {**more, "turns": [paths[name] for name in turns]}
    for name in {"patch", "together"} & set(given):
        given[name] = paths[given[name]]
    models = more.get("models", "base")
    folders = [spoken.models[n] for n in ([models] if isinstance(models, str) else models)]
    given["models"] = folders
    out = tmp_path / "out.jsonl"
    with pytest.raises(error, match=told):
        patchc.evaluate(**given, **spoken.sets, out=out, options=OPTIONS)
    assert not out.exists()


def test_code_in_a_later_patch_is_refused_before_anything_is_asked(
    spoken: Spoken, tmp_path: Path
) -> None:
    coded = shutil.copytree(spoken.models["2"], tmp_path / "coded")
    (coded / "modeling.py").write_text("import os\n")
    patchc.diff(spoken.models["1"], coded, out=tmp_path / "coded.patchc")
    turns, out = [spoken.patches[0], tmp_path / "coded.patchc"], tmp_path / "out.jsonl"
    with pytest.raises(CodeError, match=r"modeling\.py"):
        patchc.evaluate(spoken.base, **spoken.sets, turns=turns, out=out, options=OPTIONS)
    assert not out.exists()


def test_side_files_that_the_patch_before_does_not_leave(spoken: Spoken, tmp_path: Path) -> None:
    models = [shutil.copytree(spoken.models[name], tmp_path / name) for name in "12"]
    for model in models:
        (model / "terms.txt").write_text(model.name)
    patchc.diff(*models, out=tmp_path / "named.patchc")
    turns = [spoken.patches[0], tmp_path / "named.patchc"]
    with pytest.raises(MismatchError, match=r"named\.patchc does not follow .*a\.patchc"):
        patchc.evaluate(spoken.base, **spoken.sets, turns=turns, options=OPTIONS)


def test_each_patch_has_to_be_signed(spoken: Spoken, tmp_path: Path) -> None:
    patchc.keygen(tmp_path / "key")
    signed = Path(shutil.copyfile(spoken.patches[0], tmp_path / "a.patchc"))
    patchc.sign(signed, key=tmp_path / "key")
    given = {**spoken.sets, "trust": patchc.Trust(keys=tmp_path / "key.pub"), "options": OPTIONS}
    assert patchc.evaluate(spoken.base, turns=signed, **given).turns
    with pytest.raises(SignatureError, match=r"b\.patchc"):
        patchc.evaluate(spoken.base, turns=[signed, spoken.patches[1]], **given)
    with pytest.raises(SignatureError, match=r"a\.patchc"):
        patchc.evaluate(spoken.base, turns=signed, together=spoken.patches[0], **given)


def test_an_interruption_says_nothing_of_the_temporary_copy(
    spoken: Spoken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked: list[str] = []

    def interrupt(event: patchc.ProgressEvent) -> None:
        asked.append(event.stage)
        if event.stage == "apply" and any("base + a.patchc" in stage for stage in asked):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        patchc.evaluate(
            spoken.base, **spoken.sets, turns=spoken.patches, options=OPTIONS,
            progress=interrupt,
        )  # fmt: skip
    assert not str(raised.value)
    assert not [*tmp_path.iterdir()]


def test_the_command_takes_the_files_that_follow_and_shows_the_tables(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spoken.patches[0].parent)
    Path("words_judge.py").write_text(
        "def named(prompts, replies):\n"
        "    return [r.split()[0] in p.split() for p, r in zip(prompts, replies)]\n"
    )
    sets = [word for name, path in spoken.sets.items() for word in (f"--{name}", path)]
    words = ["--judge", "words_judge:named", "--max-new-tokens", 2, *sets]
    code, out, err = run(
        "evaluate", "base", "--turns", "a.patchc", "b.patchc", "c.patchc", *words, "--json"
    )
    assert code == 0, err
    found = json.loads(out)["turns"]
    assert [one["sage"]["value"] for one in found["harmful"]] == [1, 1, 0, 2 / 3]
    assert found["forgetting"] == pytest.approx({"ash": 1.0, "sage": 2 / 3, "tea": -1.0})
    turns = ["--turns=a.patchc", "b.patchc", "--together", "a.patchc", "--", "base"]
    code, out, err = run("evaluate", *words, *turns)
    assert code == 0, err
    lines = out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("turns: "))
    assert "2 ash, 3 sage, 1 tea" in lines[at]
    assert lines[at + 1].split() == ["model", "ash", "sage", "tea", "over-refusal", "utility"]
    rows = [line.split("  ")[0] for line in lines[at + 2 : at + 6]]
    assert rows == ["base", "base + a.patchc", "… + b.patchc", "base + a.patchc (together)"]
    numbers = [float(cell) for cell in lines[at + 4].replace("%", "").split()[3:]]
    assert numbers == [50.0, 0.0, 100.0, 0.0, 0.0]
    forgotten = [line for line in lines if line.startswith("ash ")]
    assert len(forgotten) == 1
    assert forgotten[0].split()[:6] == ["ash", "100.0", "%", "50.0", "%", "+50.0"]
