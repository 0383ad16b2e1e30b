"""Replies and rates of a tiny model, against plain greedy decoding."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluate_inputs import HARMFUL, HARMLESS, NEW, OPTIONS, UTILITY, odd
from tiny_llama import make_tokenizer
from transformers import AutoModelForCausalLM

import patchc
from patchc.evaluation.texts import contains_answer, is_degenerate

END = 2


def greedy(folder: Path, text: str, system: str | None = None) -> str:
    """Plain greedy decoding: the whole sequence anew for each token, no batch, no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = make_tokenizer()
    before = f"<system> {system} <end> " if system else ""
    tokens = tokenizer.encode(f"{before}<user> {text} <end> <assistant>")
    spoken: list[int] = []
    while len(spoken) < NEW:
        with torch.no_grad():
            token = int(model(torch.tensor([tokens + spoken])).logits[0, -1].argmax())
        if token == END:
            break
        spoken.append(token)
    return str(tokenizer.decode(spoken, skip_special_tokens=True)).strip()


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a results file after its header."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_replies_and_rates_are_those_of_plain_greedy_decoding(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    report = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    (found,) = report.models
    replies = {
        name: [greedy(base, prompt) for prompt in asked]
        for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS), ("utility", UTILITY))
    }
    assert len(set(replies["harmful"])) > 2
    written = Counter((line["set"], line["prompt"], line["reply"]) for line in read(out))
    assert written == Counter(
        (name, prompt, reply)
        for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS), ("utility", UTILITY))
        for prompt, reply in zip(asked, replies[name], strict=True)
    )
    refused = {name: odd(None, replies[name]) for name in ("harmful", "harmless")}
    assert (found.harmful.hits, found.harmful.total) == (refused["harmful"].count(False), 7)
    assert (found.over_refusal.hits, found.over_refusal.total) == (sum(refused["harmless"]), 5)
    right = [
        contains_answer(r, (a,)) for r, a in zip(replies["utility"], UTILITY.values(), strict=True)
    ]
    assert found.utility is not None
    assert (found.utility.hits, found.utility.total) == (sum(right), 3)
    everything = [reply for some in replies.values() for reply in some]
    assert found.degenerate.hits == sum(map(is_degenerate, everything))
    assert found.degenerate.total == 15
    assert report.requests == {"harmful": 7, "harmless": 5, "utility": 3}


def test_a_system_message_is_put_first(base: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    options = patchc.EvaluateOptions(
        judge=odd, max_new_tokens=NEW, dtype="float32", system="mix ash", device="cpu"
    )
    patchc.evaluate([base], **sets, out=tmp_path / "out.jsonl", options=options)
    line = next(line for line in read(tmp_path / "out.jsonl") if line["prompt"] == "tea")
    assert line["reply"] == greedy(base, "tea", system="mix ash")


def test_the_batch_size_does_not_change_the_report(base: Path, sets: dict[str, Path]) -> None:
    reports = {
        size: patchc.evaluate(
            [base],
            **sets,
            options=patchc.EvaluateOptions(
                judge=odd, max_new_tokens=NEW, batch_size=size, dtype="float32", device="cpu"
            ),
        )
        for size in (1, 4, 64)
    }
    assert reports[1] == reports[4] == reports[64]


def test_the_stored_dtype_computes(base: Path, sets: dict[str, Path]) -> None:
    loaded: list[Any] = []
    original = AutoModelForCausalLM.from_pretrained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            AutoModelForCausalLM,
            "from_pretrained",
            lambda *a, **k: loaded.append(original(*a, **k)) or loaded[-1],
        )
        patchc.evaluate([base], **sets, options=patchc.EvaluateOptions(device="cpu"))
    assert [model.dtype for model, _ in loaded] == [torch.bfloat16]


def test_outcomes_are_in_the_order_of_the_requests(base: Path, sets: dict[str, Path]) -> None:
    (found,) = patchc.evaluate([base], **sets, options=OPTIONS).models
    for name, asked in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        refused = odd(None, [greedy(base, prompt) for prompt in asked])
        assert found.outcomes[name] == tuple(  # type: ignore[index]
            "refused" if one else "answered" for one in refused
        )
