"""Models that cannot be asked, their names, and perplexities."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from evaluate_inputs import HARMFUL, HARMLESS, OPTIONS, UTILITY, odd
from safetensors.torch import load_file, save_file
from tiny_llama import make_tokenizer, write_base, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc.errors import (
    EvaluateError,
    UnsupportedInputError,
    UsageError,
)


def test_the_perplexity_of_reference_answers(
    base: Path, sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the sum over single tokens, each after the request as it is asked."""
    monkeypatch.setattr("patchc.evaluation.perplexity.TOGETHER", 2)
    answers = ["mix sage with ash", "ash", None, "tea with sage", "sage " * 80]
    records = [
        {"prompt": p} | ({"response": a} if a else {})
        for p, a in zip(HARMLESS, answers, strict=True)
    ]
    write_data(sets["harmless"], records)
    (found,) = patchc.evaluate([base], **sets, options=OPTIONS).models
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    losses = []
    for prompt, answer in zip(HARMLESS, answers, strict=True):
        tokens = make_tokenizer().encode(f"<user> {prompt} <end> <assistant>")
        for token in make_tokenizer().encode(answer or ""):
            if len(tokens) == 64:
                break
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            losses.append(-torch.log_softmax(logits, -1)[token].item())
            tokens.append(token)
    assert len(losses) == 4 + 1 + 3 + 64 - 7
    assert found.answer_perplexity is not None
    expected = math.exp(sum(losses) / len(losses))
    assert math.isclose(found.answer_perplexity, expected, rel_tol=1e-4)


def test_a_short_reference_is_refused_before_anything_is_asked(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    reference = tmp_path / "text.txt"
    reference.write_text("tea")
    with pytest.raises(EvaluateError, match="has 1 tokens"):
        patchc.evaluate([base], **sets, reference=reference, options=OPTIONS)


@pytest.mark.parametrize("scale", [3e4, math.nan])
def test_the_perplexity_of_a_damaged_model_is_infinite(
    sets: dict[str, Path], tmp_path: Path, scale: float
) -> None:
    damaged = write_base(tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors["lm_head.weight"] *= scale
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    reference = tmp_path / "text.txt"
    reference.write_text("how do I brew a tea with sage")
    files = ["--harmful", sets["harmful"], "--harmless", sets["harmless"]]
    code, out, err = run(
        "evaluate", damaged, *files, "--reference", reference, "--max-new-tokens", 2, "--json"
    )
    assert code == 0, err
    assert json.loads(out, parse_constant=pytest.fail)["models"][0]["perplexity"] == "inf"


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_checkpoint_that_lacks_a_weight_is_refused(
    sets: dict[str, Path], tmp_path: Path, lost: str
) -> None:
    """transformers would fill it at random."""
    model = write_base(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    whole = tensors.pop(lost)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match=f"lacks the weights {lost}"):
        patchc.evaluate([model], **sets, options=OPTIONS)
    tensors[lost] = whole[:, :-1].contiguous()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match="cannot load it as a causal language model"):
        patchc.evaluate([model], **sets, options=OPTIONS)


def test_a_tied_weight_may_be_left_out(sets: dict[str, Path], tmp_path: Path) -> None:
    model = write_base(tmp_path / "model", tied=True)
    assert "lm_head.weight" not in load_file(model / "model.safetensors")
    patchc.evaluate([model], **sets, options=OPTIONS)


@pytest.mark.parametrize("value", ["messages[0]['content'] + 1", "messages[0] % 0", "m.n.o"])
def test_a_chat_template_that_fails_is_named(
    sets: dict[str, Path], tmp_path: Path, value: str
) -> None:
    model = write_base(tmp_path / "model", template="{{ " + value + " }}")
    with pytest.raises(EvaluateError, match=r"harmful\.jsonl:1: .*chat template refuses"):
        patchc.evaluate([model], **sets, options=OPTIONS)


class _Odd:
    def __call__(self, prompts: Any, replies: Any) -> list[bool]:
        return odd(prompts, replies)


@pytest.mark.parametrize("judge", [lambda p, r: odd(p, r), partial(odd), _Odd(), _Odd().__call__])
def test_a_judge_without_a_name_of_its_own_writes_no_results_file(
    sets: dict[str, Path], tmp_path: Path, judge: Any
) -> None:
    replies = [{"prompt": prompt, "reply": "ash"} for prompt in (*HARMFUL, *HARMLESS, *UTILITY)]
    generations = [write_data(tmp_path / "r", replies)]
    options = patchc.EvaluateOptions(judge=judge)
    patchc.evaluate(**sets, generations=generations, options=options)
    with pytest.raises(UsageError, match="told from another by its name"):
        patchc.evaluate(**sets, generations=generations, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_perplexity_is_measured_in_windows(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a sum over windows of 10 tokens, each scoring what the one before did not."""
    monkeypatch.setattr("patchc.evaluation.perplexity.WINDOW", 10)
    words = ["how", "do", "I", "brew", "a", "tea", "potion", "mix", "sage", "with", "ash"] * 3
    reference = tmp_path / "text.txt"
    reference.write_text(" ".join(words))
    (found,) = patchc.evaluate([base], **sets, reference=reference, options=OPTIONS).models
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = make_tokenizer().encode(" ".join(words))
    losses = []
    for at in range(1, len(tokens)):
        window = 0
        while window + 10 <= at:
            window += 5
        with torch.no_grad():
            logits = model(torch.tensor([tokens[window:at]])).logits[0, -1]
        losses.append(-torch.log_softmax(logits, -1)[tokens[at]].item())
    assert len(losses) == 32
    assert found.perplexity is not None
    assert math.isclose(found.perplexity, math.exp(sum(losses) / 32), rel_tol=1e-4)


def test_what_cannot_be_asked_is_refused(base: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        patchc.evaluate([], **sets)
    with pytest.raises(UnsupportedInputError, match="the model's folder"):
        patchc.evaluate([base / "model.safetensors"], **sets, options=OPTIONS)
    with pytest.raises(EvaluateError, match="no chat template"):
        patchc.evaluate([write_base(tmp_path / "plain", template=None)], **sets, options=OPTIONS)
    with pytest.raises(EvaluateError, match="leaves no room for the reply"):
        patchc.evaluate([base], **sets, options=patchc.EvaluateOptions(max_new_tokens=60))
    refusing = write_base(tmp_path / "refusing", template="{{ raise_exception('no system role') }}")
    with pytest.raises(EvaluateError, match=r"harmful\.jsonl:1: .*no system role"):
        patchc.evaluate([refusing], **sets, options=OPTIONS)


def test_models_of_one_name_go_by_their_paths(sets: dict[str, Path], tmp_path: Path) -> None:
    models = [write_base(tmp_path / part / "model") for part in ("a", "b")]
    report = patchc.evaluate(models, **sets, options=OPTIONS)
    assert [model.model for model in report.models] == list(map(str, models))
