"""lm-evaluation-harness on a task of three questions (`make test-lm-eval`)."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import make_tokenizer, write_base, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc.errors import EvaluateError, MissingExtraError

QUESTIONS = [
    {"q": "brew a", "choices": ["tea", "potion", "ash"], "gold": 0},
    {"q": "mix sage with", "choices": ["tea", "ash", "mix"], "gold": 1},
    {"q": "how do", "choices": ["I", "sage", "a"], "gold": 1},
    {"q": "mix a tea with", "choices": ["sage", "brew", "with"], "gold": 2},
]
TASK = """
task: drinks
dataset_path: json
dataset_kwargs:
  data_files: {data}
output_type: multiple_choice
test_split: train
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return write_data(tmp_path / "requests.jsonl", [{"prompt": "a tea"}])


@pytest.mark.filterwarnings("default")
@pytest.mark.lm_eval
def test_a_tasks_figures_stand_beside_the_rates(
    tmp_path: Path, requests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    base = write_base(tmp_path / "base")
    data = write_data(tmp_path / "questions.jsonl", QUESTIONS)
    task = tmp_path / "drinks.yaml"
    task.write_text(TASK.format(data=data))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = make_tokenizer()
    right = 0
    for question in QUESTIONS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(question["q"])])).logits[0, -1]
        scores = [logits[tokenizer.encode(choice)[0]].item() for choice in question["choices"]]
        right += scores.index(max(scores)) == question["gold"]
    assert 0 < right < len(QUESTIONS)
    options = patchc.EvaluateOptions(
        lm_eval=(str(task),), dtype="float32", device="cpu", max_new_tokens=2
    )
    report = patchc.evaluate([base], harmful=requests, harmless=requests, options=options)
    (found,) = report.models
    assert found.lm_eval == {"drinks": {"acc": right / len(QUESTIONS)}}
    json.dumps(found.lm_eval)
    unknown = patchc.EvaluateOptions(lm_eval=("no_such_task",), device="cpu", max_new_tokens=2)
    with pytest.raises(EvaluateError, match="lm-eval failed"):
        patchc.evaluate([base], harmful=requests, harmless=requests, options=unknown)


def test_the_harness_loads_nothing_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: Path
) -> None:
    """Given a folder, it would fetch what the files name: kernels, and models of adapters."""
    given: dict[str, Any] = {}
    module = types.ModuleType("lm_eval")
    module.simple_evaluate = lambda **_settings: {"results": {"drinks": {"acc,none": 1}}}  # type: ignore[attr-defined]
    models = types.ModuleType("lm_eval.models.huggingface")
    models.HFLM = lambda **settings: given.update(settings)  # type: ignore[attr-defined]
    for one in (module, types.ModuleType("lm_eval.models"), models):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    base = write_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["attn_implementation"] = "org/kernel"
    (base / "config.json").write_text(json.dumps(config))
    options = patchc.EvaluateOptions(lm_eval=("drinks",), device="cpu", max_new_tokens=2)
    report = patchc.evaluate([base], harmful=requests, harmless=requests, options=options)
    assert report.models[0].lm_eval == {"drinks": {"acc": 1}}
    assert given["pretrained"].config._attn_implementation == "sdpa"
    assert given["pretrained"].dtype == torch.bfloat16
    assert given["tokenizer"].encode("a tea") == make_tokenizer().encode("a tea")


def test_without_lm_eval_the_remedy_is_named(
    requests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    options = patchc.EvaluateOptions(lm_eval=("drinks",))
    with pytest.raises(MissingExtraError, match="lm-eval"):
        patchc.evaluate(["model"], harmful=requests, harmless=requests, options=options)
