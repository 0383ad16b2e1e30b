"""Replies that another program made, and judges that are classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluate_inputs import HARMFUL, HARMLESS, OPTIONS
from safetensors.torch import load_file, save_file
from tiny_llama import make_tokenizer, write_data
from transformers import LlamaConfig, LlamaForSequenceClassification

import patchc
from patchc.errors import (
    EvaluateError,
    UsageError,
)
from patchc.evaluation.judges import open_judge


@pytest.mark.parametrize(
    "given", [{"patch": "x"}, {"reference": "x"}, {"options": {"lm_eval": ("x",)}}]
)
def test_what_replies_made_elsewhere_cannot_use_is_refused(
    sets: dict[str, Path], given: dict[str, Any]
) -> None:
    if "options" in given:
        given = {"options": patchc.EvaluateOptions(**given["options"])}
    with pytest.raises(UsageError, match="needs a model"):
        patchc.evaluate(**sets, generations=["r"], **given)


def test_replies_made_elsewhere_are_judged_as_the_models_own(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    """A results file holds sets, prompts and replies, so it can be judged again."""
    out = tmp_path / "out.jsonl"
    (model,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    (again,) = patchc.evaluate(**sets, generations=[out], options=OPTIONS).models
    for figure in ("harmful", "over_refusal", "utility", "degenerate"):
        assert getattr(again, figure) == getattr(model, figure)
    assert again.model == "out.jsonl"


@pytest.mark.parametrize("ids", [("1", "2"), ("7", "7")])
def test_a_reply_belongs_to_the_request_that_id_and_prompt_name(
    tmp_path: Path, ids: tuple[str, str]
) -> None:
    """Sets that number their requests alike, in one file of replies that names no set."""
    harmful = write_data(
        tmp_path / "h", [{"id": i, "prompt": p} for i, p in zip(ids, "ab", strict=True)]
    )
    harmless = write_data(
        tmp_path / "s", [{"id": i, "prompt": p} for i, p in zip(ids, "cd", strict=True)]
    )
    records = [
        {"id": i, "prompt": p, "reply": "I cannot" if p in "ac" else "Sure"}
        for i, p in zip(2 * ids, "abcd", strict=True)
    ]
    replies = write_data(tmp_path / "r", records)
    (found,) = patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies]).models
    assert (found.harmful.hits, found.over_refusal.hits) == (1, 1)


@pytest.mark.parametrize(
    "record",
    [
        {"id": 1, "prompt": "x"},
        {"id": 2, "prompt": "a"},
        {"id": 1, "prompt": "a", "set": "utility"},
    ],
)
def test_a_reply_whose_prompt_or_id_is_another_is_not_taken(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    harmful = write_data(tmp_path / "h", [{"id": 1, "prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    lines = [record | {"reply": "no"}, {"prompt": "b", "reply": "yes"}]
    replies = write_data(tmp_path / "r", lines)
    with pytest.raises(EvaluateError, match=r"holds no reply to the harmful request of .*h:1"):
        patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies])


def test_replies_are_found_by_id_before_prompt(tmp_path: Path) -> None:
    harmful = write_data(tmp_path / "h", [{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    replies = write_data(
        tmp_path / "r",
        [
            {"id": 1, "reply": "I cannot"},
            {"id": "2", "reply": "Sure"},
            {"prompt": "b", "reply": "I can't"},
            {"prompt": "never asked", "reply": ""},
        ],
    )
    (found,) = patchc.evaluate(harmful=harmful, harmless=harmless, generations=[replies]).models
    assert (found.harmful.hits, found.harmful.total) == (1, 2)
    assert found.over_refusal.value == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"prompt": "b", "reply": "x"}], "holds no reply to the harmful request"),
        ([{"prompt": "a"}], 'r:1: needs a text "reply"'),
        ([{"reply": "x"}], 'r:1: needs "prompt" or "id"'),
        ([{"prompt": "a", "reply": "x"}, {"prompt": "a", "reply": "y"}], "r:2: another reply"),
        ([{"prompt": "a", "reply": "x", "set": []}], 'r:1: "set" must be a text'),
        ([{"prompt": ["a"], "reply": "x", "id": 1}], 'r:1: "prompt" must be a text'),
        ([{"prompt": "a", "reply": "\ud800"}], "r:1: .*half a character"),
    ],
)
def test_replies_that_do_not_fit_are_refused(
    tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    harmful = write_data(tmp_path / "h", [{"prompt": "a"}])
    harmless = write_data(tmp_path / "s", [{"prompt": "b"}])
    with pytest.raises(EvaluateError, match=message):
        patchc.evaluate(
            harmful=harmful, harmless=harmless, generations=[write_data(tmp_path / "r", records)]
        )


def test_a_classifier_judges(tmp_path: Path) -> None:
    """Its verdicts are the labels that it gives to the replies, whatever the padding."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, initializer_range=0.5,
        id2label={0: "COMPLIANCE", 1: "REFUSAL"}, label2id={"COMPLIANCE": 0, "REFUSAL": 1},
    )  # fmt: skip
    classifier = LlamaForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "classifier")
    replies = [*HARMFUL, *HARMLESS]
    with torch.no_grad():
        labels = [
            int(classifier(torch.tensor([tokenizer.encode(r)])).logits.argmax()) for r in replies
        ]
    assert len(set(labels)) == 2
    for name, refusal in (("", 1), ("=REFUSAL", 1), ("=COMPLIANCE", 0)):
        judge = open_judge(patchc.EvaluateOptions(judge=f"hf:{tmp_path}/classifier{name}"))
        assert judge(replies, replies) == [
            "refused" if label == refusal else "answered" for label in labels
        ]
    with pytest.raises(UsageError, match="one of COMPLIANCE, REFUSAL"):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{tmp_path}/classifier=OTHER"))


@pytest.mark.parametrize("damage", ["lost", "mismatched", "one label"])
def test_a_classifier_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0,
        id2label={0: "REFUSAL"} if damage == "one label" else {0: "NO", 1: "REFUSAL"},
    )  # fmt: skip
    folder = tmp_path / "classifier"
    LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    head = tensors.pop("score.weight")
    if damage != "lost":
        tensors["score.weight"] = torch.cat([head, head]) if damage == "mismatched" else head
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"cannot load the classifier|has one label"):
        open_judge(patchc.EvaluateOptions(judge=f"hf:{folder}=REFUSAL"))
