"""``patchc.derive`` by the objectives that learn from responses, on a tiny Llama."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from objective_inputs import (
    HARMFUL,
    HARMLESS,
    REFUSAL,
    judge,
    options_of,
    record,
    record_of,
)
from tiny_llama import make_tokenizer, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc.errors import DeriveError


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
