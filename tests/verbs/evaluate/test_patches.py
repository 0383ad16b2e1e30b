"""Models evaluated with a patch beside the same models without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from evaluate_inputs import OPTIONS
from safetensors.torch import load_file, save_file
from tiny_llama import TEMPLATE, write_base, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc.errors import AlreadyPatchedError, UsageError, WrongBaseError
from patchc.evaluation.paired import compare


def test_a_patch_gives_a_second_row_that_is_the_patched_model(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    patch, tuned = fix
    report = patchc.evaluate([base], **sets, patch=patch, options=OPTIONS)
    plain, patched = report.models
    assert report.changes == {"base + fix.patchc": compare(plain.outcomes, patched.outcomes)}
    assert set(report.changes["base + fix.patchc"]) == {
        "harmful", "over_refusal", "misanswered", "utility",
    }  # fmt: skip
    assert (plain.model, plain.patch) == ("base", None)
    assert (patched.model, patched.patch) == ("base + fix.patchc", str(patch))
    assert plain.path == patched.path == str(base)
    facts = patchc.inspect(patch)
    assert (plain.digest, patched.digest) == (facts.base_digest, facts.result_digest)
    (direct,) = patchc.evaluate([tuned], **sets, options=OPTIONS).models
    for figure in ("harmful", "over_refusal", "utility", "degenerate", "digest"):
        assert getattr(patched, figure) == getattr(direct, figure)
    assert not list(scratch.iterdir())


def test_the_table_of_changes_shows_what_the_json_holds(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path]
) -> None:
    words = ["evaluate", base, "--patch", fix[0], "--max-new-tokens", 3]
    words += [word for name, path in sets.items() for word in (f"--{name}", path)]
    code, shown, err = run(*words)
    assert code == 0, err
    (changes,) = json.loads(run(*words, "--json")[1])["changes"].values()
    assert changes["harmful"]["difference"] == 0.0
    title, header, row, following = shown.splitlines()[-4:]
    assert following.startswith("next: patchc apply ")
    assert title.startswith("patched − base on the same requests: points [95 %], p")
    assert header.split() == ["model", "harmful", "over-refusal", "misanswered", "utility"]
    assert row.startswith("base + fix.patchc")
    utility = changes["utility"]
    points = [100 * utility[name] for name in ("difference", "low", "high")]
    assert row.endswith("{:+.1f} [{:+.1f}, {:+.1f}] p={:.2g}".format(*points, utility["p_value"]))
    assert "+0.0 [-41.0, +41.0] p=1" in row


def test_a_patch_with_code_is_refused_before_anything_is_asked(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    coded = write_base(tmp_path / "coded")
    (coded / "modeling.py").write_text("import os\n")
    patchc.diff(base, coded, out=tmp_path / "coded.patchc")
    out = tmp_path / "replies.jsonl"
    with pytest.raises(patchc.CodeError, match=r"modeling\.py"):
        patchc.evaluate([base], **sets, patch=tmp_path / "coded.patchc", out=out, options=OPTIONS)
    assert not out.exists()


def test_a_file_of_one_s_own_is_refused_before_anything_is_asked(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    after = write_base(tmp_path / "after", template=TEMPLATE.replace("> {{", "> tea {{"))
    mine = write_base(tmp_path / "mine", template=TEMPLATE.replace("> {{", "> my {{"))
    patchc.diff(base, after, out=tmp_path / "template.patchc")
    with pytest.raises(patchc.SideFileError, match=r"chat_template\.jinja"):
        patchc.evaluate([mine], **sets, patch=tmp_path / "template.patchc", options=OPTIONS)


def test_a_patch_of_another_model_is_refused_before_anything_is_asked(
    fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path
) -> None:
    patch, tuned = fix
    other = write_base(tmp_path / "other", tied=True)
    with pytest.raises(WrongBaseError):
        patchc.evaluate([other], **sets, patch=patch, out=tmp_path / "out", options=OPTIONS)
    assert not (tmp_path / "out").exists()
    assert tuned.exists()


def test_a_patch_is_checked_against_all_models_before_anything_is_asked(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    patch, tuned = fix
    other = write_base(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["lm_head.weight"] += 1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    for wrong, error in ((other, WrongBaseError), (tuned, AlreadyPatchedError)):
        with pytest.raises(error, match=str(wrong)):
            patchc.evaluate([base, wrong], **sets, patch=patch, options=OPTIONS)


def test_a_patched_model_is_asked_with_its_own_chat_template(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    """A results file tells models apart by weights, so it is not for such a patch."""
    after = write_base(tmp_path / "after", template=TEMPLATE.replace("> {{", "> tea {{"))
    write_data(sets["harmless"], [{"prompt": "brew a tea", "response": "mix sage"}])
    patch = tmp_path / "template.patchc"
    patchc.diff(base, after, out=patch)
    (direct,) = patchc.evaluate(after, **sets, options=OPTIONS).models
    for given in ({"patch": patch}, {"turns": patch}):
        plain, patched = patchc.evaluate(base, **sets, **given, options=OPTIONS).models  # type: ignore[arg-type]
        assert patched.answer_perplexity == direct.answer_perplexity != plain.answer_perplexity
        assert patched.outcomes == direct.outcomes
        out = tmp_path / "out.jsonl"
        with pytest.raises(UsageError, match=r"template\.patchc changes files alone \(chat_temp"):
            patchc.evaluate(base, **sets, **given, out=out, options=OPTIONS)  # type: ignore[arg-type]
        assert not out.exists()
