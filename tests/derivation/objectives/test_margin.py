"""``patchc.derive`` by the margin of refusal, on a tiny Llama that refuses some requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from objective_inputs import (
    HARMFUL,
    HARMLESS,
    QUESTIONS,
    judge,
    options_of,
    record,
    refuse_all,
)
from safetensors.torch import load_file
from tiny_llama import make_tokenizer
from transformers import AutoModelForCausalLM

import patchc
from patchc import Recipe
from patchc.derivation.derive_options import Objective
from patchc.derivation.margin import Openings, refusal_margin
from patchc.recipe import MergeRecipe
from patchc.verbs.derive import DeriveReport

WORD = {
    word: number for number, word in enumerate(make_tokenizer().convert_ids_to_tokens(range(17)))
}


def margins(folder: Path, asked: Sequence[str], openings: Sequence[tuple[int, ...]]) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = make_tokenizer()
    tokens = [tokenizer.encode(f"<user> {one} <end> <assistant>") for one in asked]
    found: list[float] = refusal_margin(model, tokens, Openings.of(openings)).tolist()
    return found


def derive_margin(base: Path, files: dict[str, Path], out: Path, **changes: Any) -> DeriveReport:
    return patchc.derive(
        base,
        files["data"],
        out,
        harmless=files["harmless"],
        options=options_of("margin", **changes),
        judge=judge,
    )


def test_margin_finds_openings_and_parts_the_requests(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = derive_margin(base, files, tmp_path / "work")
    (margin,) = report.directions
    assert margin.path == tmp_path / "work/margin"
    opening = (WORD["I"],)
    assert report.openings == ("I",)
    written = record(report)
    assert written["openings"] == [{"text": "I", "tokens": list(opening)}]
    assert written["objective"] == "margin"
    assert [written[name]["examples"] for name in ("data", "harmless")] == [4, 4]
    assert written["anchors"] == margin.anchors == 3
    assert len(written["tuning"]["losses"]) == len(written["tuning"]["divergences"]) == 30
    assert margins(base, HARMFUL[3:], [opening])[0] < 0 < margins(base, HARMLESS[3:], [opening])[0]
    assert min(margins(margin.path, HARMFUL, [opening])) > 0
    assert max(margins(margin.path, HARMLESS, [opening])) < 0


def test_margin_changes_the_scored_tensors_alone(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = derive_margin(base, files, tmp_path / "work", exclude=(r"layers\.0\.",))
    before = load_file(base / "model.safetensors")
    after = load_file(report.directions[0].path / "model.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    scores = load_file(report.directions[0].path / "scores.safetensors")
    assert changed == scores.keys() == {n for n in before if "layers.1." in n and "_proj" in n}
    assert all((score > 0).any() for score in scores.values())


def test_the_scores_are_not_zero_where_the_target_is_reached(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = derive_margin(base, files, tmp_path / "work", margin_target=1e-6, anchor_weight=0.0)
    assert record(report)["tuning"]["losses"][-1] == 0.0
    scores = load_file(report.directions[0].path / "scores.safetensors")
    assert all((score > 0).any() for score in scores.values())


def test_openings_that_are_given_need_no_refusal(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = patchc.derive(
        base,
        files["data"],
        tmp_path / "work",
        harmless=files["harmless"],
        options=options_of("margin", openings=("I how", "do I", "do I mix"), anchor_weight=0.0),
        judge=refuse_all,
    )
    assert report.openings == ("I how", "do I")
    assert record(report)["anchors"] == 0
    assert report.directions[0].last_loss < report.directions[0].first_loss


@pytest.mark.parametrize("objective", ["pair", "npo", "refusals", "margin"])
def test_an_anchor_file_holds_every_objective(
    base: Path, files: dict[str, Path], tmp_path: Path, objective: Objective
) -> None:
    """The losses do not hold the anchor's part: the first one is the same without.

    The margin's own part learns from the anchor's requests too.
    """
    given: dict[str, Any] = {"judge": judge}
    if objective == "margin":
        given["harmless"] = files["harmless"]
    data = files["answered" if objective in ("pair", "npo") else "data"]
    found = [
        patchc.derive(
            base, data, tmp_path / str(weight), anchor=anchor, options=options_of(
                objective, anchor_weight=weight
            ), **given,
        )
        for weight, anchor in ((0.0, None), (30.0, files["anchor"]))
    ]  # fmt: skip
    free, held = (record(report)["tuning"] for report in found)
    assert free["divergences"] == []
    assert held["divergences"][0] == pytest.approx(0.0, abs=1e-5)
    assert max(held["divergences"]) > 1e-5
    same = held["losses"][0] == pytest.approx(free["losses"][0], rel=1e-5)
    assert same == (objective != "margin")
    assert found[1].directions[0].anchors == 1 + 3 * (objective == "margin")


def test_the_margin_lowers_refusals_of_the_anchors_requests(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    without = derive_margin(base, files, tmp_path / "a", anchor_weight=0.0)
    within = patchc.derive(
        base,
        files["data"],
        tmp_path / "b",
        harmless=files["harmless"],
        anchor=files["anchor"],
        options=options_of("margin", anchor_weight=0.1),
        judge=judge,
    )
    openings = [tuple(one["tokens"]) for one in record(within)["openings"]]
    found = {
        name: margins(folder, QUESTIONS, openings)
        for name, folder in {
            "base": base,
            "without": without.directions[0].path,
            "within": within.directions[0].path,
        }.items()
    }
    assert max(found["base"]) > 0
    assert max(found["within"]) < min(0, max(found["without"]))


def test_the_same_seed_gives_the_same_bytes(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        derive_margin(base, files, tmp_path / name)
    for file in ("model.safetensors", "scores.safetensors", "derive.json"):
        first, second = (tmp_path / name / "margin" / file for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("objective", ["refusals", "npo", "margin"])
def test_bfloat16_products_leave_weights_in_fp32(
    base: Path, files: dict[str, Path], tmp_path: Path, objective: Objective
) -> None:
    report = patchc.derive(
        base,
        files["answered" if objective == "npo" else "data"],
        tmp_path / "work",
        harmless=files["harmless"] if objective == "margin" else None,
        anchor=files["anchor"],
        options=options_of(objective, precision="bfloat16", anchor_weight=0.1),
        judge=judge,
    )
    (found,) = report.directions
    assert found.last_loss < found.first_loss
    tensors = load_file(found.path / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}


def test_the_margin_builds_as_one_component_and_as_a_merge(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    margin = derive_margin(base, files, tmp_path / "work").directions[0].path
    thinned = Recipe(sets="se", retain=1.0, top_se=1.0, alpha=1.0)
    patchc.build(base, se=margin, out=tmp_path / "a.patchc", recipe=thinned)
    patchc.apply(tmp_path / "a.patchc", base, out=tmp_path / "patched")
    tuned = load_file(margin / "model.safetensors")
    for name, value in load_file(tmp_path / "patched/model.safetensors").items():
        torch.testing.assert_close(value, tuned[name], rtol=1e-5, atol=1e-6)
    dare = MergeRecipe("dare")
    report = patchc.build(base, tuned=margin, out=tmp_path / "b.patchc", recipe=dare)
    assert report.entries > 0
    for number, options in enumerate(
        (["--se", margin, "--sets", "se"], ["--recipe", "dare", "--tuned", margin])
    ):
        code, _, error = run("build", base, *options, "-o", tmp_path / f"{number}.patchc")
        assert code == 0, error
