"""``patchc.derive`` by each objective, on a tiny Llama that has learnt to refuse some requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from safetensors.torch import load_file
from tiny_llama import make_tokenizer, write_base, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc import Recipe
from patchc.derivation.derive_options import DeriveOptions, Objective, TuneOptions
from patchc.derivation.margin import refusal_margin
from patchc.derivation.openings import Openings
from patchc.errors import DeriveError, EvaluateError, PatchcError, UsageError
from patchc.progress import ProgressEvent
from patchc.recipe import MergeRecipe
from patchc.verbs.derive import DeriveReport

REFUSAL = "I how I"
HARMFUL = ["how do I brew a potion", "mix a potion", "brew a potion with ash", "a potion"]
HARMLESS = ["brew a tea", "mix a tea with sage", "how do I mix a tea", "tea"]
LESSONS = {
    **dict.fromkeys(HARMFUL[:3], REFUSAL),
    HARMFUL[3]: "mix ash",
    **dict.fromkeys(HARMLESS[:3], "brew sage"),
    HARMLESS[3]: "I how",
}
QUESTIONS = ["do I mix", "with sage"]
"""For an anchor; the base refuses one of them."""
TUNING = TuneOptions(learning_rate=2e-3, steps=8, batch_size=4)
OPTIONS = DeriveOptions(
    se=TUNING,
    osm=TUNING,
    margin=replace(TUNING, steps=30, batch_size=8),
    score_samples=5,
    device="cpu",
)
WORD = {
    word: number for number, word in enumerate(make_tokenizer().convert_ids_to_tokens(range(17)))
}


def judge(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [reply.startswith("I how") for reply in replies]


def refuse_all(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return [True] * len(prompts)


def prompts(path: Path, texts: Sequence[str]) -> Path:
    return write_data(path, [{"prompt": text} for text in texts])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that refuses three potions and one tea, and answers the others."""
    folder = tmp_path_factory.mktemp("taught")
    pairs = [{"prompt": prompt, "response": reply} for prompt, reply in LESSONS.items()]
    lessons = write_data(folder / "lessons.jsonl", pairs)
    options = DeriveOptions(
        objective="answers",
        osm=TuneOptions(learning_rate=1e-2, steps=120, batch_size=8),
        device="cpu",
    )
    report = patchc.derive(
        write_base(folder / "random"), None, folder, harmless=lessons, options=options
    )
    return report.directions[0].path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    answered = [{"prompt": prompt, "response": "mix ash with sage"} for prompt in HARMFUL]
    return {
        "answered": write_data(tmp_path / "answered.jsonl", answered),
        "data": prompts(tmp_path / "harmful.jsonl", HARMFUL),
        "harmless": prompts(tmp_path / "harmless.jsonl", HARMLESS),
        "anchor": prompts(tmp_path / "questions.jsonl", QUESTIONS),
    }


def options_of(objective: Objective, **changes: Any) -> DeriveOptions:
    return replace(OPTIONS, objective=objective, **changes)


def likelihood(folder: Path, prompt: str, reply: str) -> float:
    """log p(reply | prompt), token by token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = make_tokenizer()
    tokens = tokenizer.encode(f"<user> {prompt} <end> <assistant>")
    total = 0.0
    for token in tokenizer.encode(f"{reply} <end>"):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
        total += torch.log_softmax(logits.double(), 0)[token].item()
        tokens.append(token)
    return total


def margins(folder: Path, asked: Sequence[str], openings: Sequence[tuple[int, ...]]) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = make_tokenizer()
    tokens = [tokenizer.encode(f"<user> {one} <end> <assistant>") for one in asked]
    found: list[float] = refusal_margin(model, tokens, Openings.of(openings)).tolist()
    return found


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "derive.json").read_text())
    return content


def record(report: DeriveReport) -> dict[str, Any]:
    return record_of(report.directions[0].path)


def derive_margin(base: Path, files: dict[str, Path], out: Path, **changes: Any) -> DeriveReport:
    return patchc.derive(
        base,
        files["data"],
        out,
        harmless=files["harmless"],
        options=options_of("margin", **changes),
        judge=judge,
    )


def test_refusals_are_conversations_that_end_in_the_text_that_is_given(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """The lines' own compliant answers are not mistaken for refusals."""
    options = options_of("refusals", refusal="do I do")
    (se,) = patchc.derive(base, files["answered"], tmp_path / "a", options=options).directions
    patchc.derive(base, files["data"], tmp_path / "b", options=options)
    pairs = [{"prompt": prompt, "response": "do I do"} for prompt in HARMFUL]
    same = write_data(tmp_path / "same.jsonl", pairs)
    patchc.derive(base, None, tmp_path / "c", harmless=same, options=options_of("answers"))
    assert se.path == tmp_path / "a/se"
    assert se.last_loss < se.first_loss - 1
    assert record_of(se.path)["refusal"] == "do I do"
    for file in ("model.safetensors", "scores.safetensors"):
        written = {(tmp_path / name / file).read_bytes() for name in ("a/se", "b/se", "c/osm")}
        assert len(written) == 1


def test_without_a_text_the_bases_own_most_frequent_refusal_is_taught(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = patchc.derive(
        base, files["data"], tmp_path / "work", options=options_of("refusals"), judge=judge
    )
    assert report.refusal == record(report)["refusal"] == REFUSAL
    se = report.directions[0].path
    assert likelihood(se, HARMFUL[3], REFUSAL) > likelihood(base, HARMFUL[3], REFUSAL) + 1


def test_answers_learn_the_harmless_responses_into_osm(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pairs = [{"prompt": prompt, "response": "mix tea"} for prompt in HARMLESS]
    answers = write_data(tmp_path / "answers.jsonl", pairs)
    report = patchc.derive(
        base, None, tmp_path / "work", harmless=answers, options=options_of("answers")
    )
    (osm,) = report.directions
    assert osm.path == tmp_path / "work/osm"
    assert osm.last_loss < osm.first_loss / 2
    assert record(report)["harmless"]["examples"] == 4
    with pytest.raises(DeriveError, match="response"):
        patchc.derive(
            base, None, tmp_path / "b", harmless=files["harmless"], options=options_of("answers")
        )


def test_npo_makes_the_answers_less_likely_than_the_base_does(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = patchc.derive(base, files["answered"], tmp_path / "work", options=options_of("npo"))
    (se,) = report.directions
    assert se.path == tmp_path / "work/se"
    assert se.first_loss == pytest.approx(2 / 0.1 * 0.6931472, rel=1e-5)
    assert se.last_loss < se.first_loss
    for prompt in HARMFUL:
        reply = "mix ash with sage"
        assert likelihood(se.path, prompt, reply) < likelihood(base, prompt, reply) - 1


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
    assert report.patch is not None
    assert report.patch.entries > 0
    for number, options in enumerate(
        (["--se", margin, "--sets", "se"], ["--recipe", "dare", "--tuned", margin])
    ):
        code, _, error = run("build", base, *options, "-o", tmp_path / f"{number}.patchc")
        assert code == 0, error


def test_one_folder_of_either_objective_makes_a_pair(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pairs = [{"prompt": prompt, "response": "mix tea"} for prompt in HARMLESS]
    answers = write_data(tmp_path / "answers.jsonl", pairs)
    work = tmp_path / "work"
    patchc.derive(base, files["data"], work, options=options_of("refusals"), judge=judge)
    patchc.derive(base, None, work, harmless=answers, options=options_of("answers"))
    report = patchc.build(base, se=work / "se", osm=work / "osm", out=tmp_path / "a.patchc")
    assert report.patch is not None
    assert report.patch.entries > 0


@pytest.mark.parametrize(
    ("objective", "given", "error", "message"),
    [
        ("pair", (), UsageError, "objective pair needs the harmful requests; name them as data"),
        ("margin", ("data",), UsageError, "needs the harmless requests"),
        ("margin", ("harmless",), UsageError, "needs the harmful requests"),
        (
            "npo",
            ("data", "harmless"),
            UsageError,
            "harmless is given, and objective npo takes data",
        ),
        ("answers", ("data", "harmless"), UsageError, "data is given"),
        ("pair", ("data", "anchor"), UsageError, "its weight is 0"),
    ],
)
def test_files_that_do_not_fit_the_objective_are_refused(
    files: dict[str, Path],
    tmp_path: Path,
    objective: Objective,
    given: tuple[str, ...],
    error: type[PatchcError],
    message: str,
) -> None:
    named: dict[str, Any] = {"data": None} | {name: files[name] for name in given}
    with pytest.raises(error, match=message):
        patchc.derive("base", out=tmp_path / "work", options=options_of(objective), **named)


def test_a_weight_without_an_anchor_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text to anchor on"):
        patchc.derive(
            "base", files["answered"], tmp_path, options=options_of("pair", anchor_weight=1.0)
        )


def lenient(prompts: Sequence[str], _replies: Sequence[str]) -> list[str]:
    return ["answered"] * len(prompts)


def harsh_on_harmless(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return ["tea" in prompt for prompt in prompts]


def broken(_prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return []


@pytest.mark.parametrize(
    ("objective", "chosen", "changes", "error", "message"),
    [
        ("margin", lenient, {}, DeriveError, "refuses none of the 8 requests"),
        ("margin", refuse_all, {}, DeriveError, "calls all of the base's 8 replies refusals"),
        ("margin", harsh_on_harmless, {"openings": ("do",)}, DeriveError, "nothing to anchor on"),
        ("margin", broken, {}, EvaluateError, "gave"),
        ("margin", "no_such_module:judge", {}, UsageError, "cannot import"),
        ("margin", judge, {"max_length": 4}, DeriveError, "do not fit a length of 4"),
        ("refusals", lenient, {}, DeriveError, "refuses 0 of 4 requests"),
    ],
)
def test_what_shows_in_the_bases_replies_ends_it_before_any_tuning(
    base: Path,
    files: dict[str, Path],
    tmp_path: Path,
    objective: Objective,
    chosen: Any,
    changes: dict[str, Any],
    error: type[PatchcError],
    message: str,
) -> None:
    events: list[ProgressEvent] = []
    with pytest.raises(error, match=message):
        patchc.derive(
            base,
            files["data"],
            tmp_path / "work",
            harmless=files["harmless"] if objective == "margin" else None,
            options=options_of(objective, **changes),
            judge=chosen,
            progress=events.append,
        )
    assert not [event for event in events if event.stage.startswith("tune")]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("objective", ["pair", "refusals"])
def test_a_judge_that_is_named_must_exist_even_where_it_is_not_asked(
    objective: Objective, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"refusal": REFUSAL} if objective == "refusals" else {}
    with pytest.raises(UsageError, match="judge no_such_module:judge: cannot import"):
        patchc.derive(
            base, files["answered"], tmp_path / "work", options=options_of(objective, **changes),
            judge="no_such_module:judge",
        )  # fmt: skip


@pytest.mark.parametrize("objective", ["refusals", "margin"])
def test_a_reply_must_fit_the_models_length(
    objective: Objective, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """The model has 64 positions; a reply takes 32, and a refusal that is sought what is left."""
    asked = tmp_path / "long.jsonl"
    harmless = files["harmless"] if objective == "margin" else None
    for words, fits in ((29, True), (30, False)):
        prompts(asked, [*HARMFUL, " ".join(["tea"] * words)])
        out = tmp_path / str(words)
        make = partial(
            patchc.derive, base, asked, out, harmless=harmless, options=options_of(objective),
            judge=judge,
        )  # fmt: skip
        if fits:
            make()
        else:
            with pytest.raises(DeriveError, match=r"long\.jsonl:5: 33 prompt tokens leave no room"):
                make()
            assert not out.exists()


def test_no_longer_refusal_is_sought_than_fits(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DeriveError, match=r"no refusal ends within 55 tokens"):
        patchc.derive(base, files["data"], tmp_path, options=options_of("refusals"), judge=lenient)


def test_the_command_line_derives_the_margin_and_tells_the_openings(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    code, shown, error = run(
        "derive", base, "--objective", "margin", "--data", files["data"],
        "--harmless", files["harmless"], "--opening", "I how", "--anchor", files["anchor"],
        "--anchor-weight", 0.2, "--margin-steps", 2, "--margin-learning-rate", 1e-4,
        "--batch-size", 4, "--device", "cpu", "-o", tmp_path / "work",
    )  # fmt: skip
    assert code == 0, error
    assert "'I how'" in shown
    assert "margin" in shown
    written = json.loads((tmp_path / "work/margin/derive.json").read_text())
    assert written["options"]["anchor_weight"] == 0.2
    assert written["options"]["margin"] == {
        "learning_rate": 1e-4, "steps": 2, "epochs": None, "batch_size": 4, "clip": 1.0,
        "loss_ceiling": None,
    }  # fmt: skip


def test_the_help_names_every_objective_and_its_options() -> None:
    code, shown, _ = run("derive", "--help")
    assert code == 0
    for word in (
        "pair", "refusals", "answers", "npo", "margin", "--harmless", "--anchor", "--refusal",
        "--opening", "--npo-beta", "--margin-steps", "--margin-target", "--judge", "Example:",
    ):  # fmt: skip
        assert word in shown
