"""A model that runs layer by layer, called like the one in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layered_models import held_model
from tiny_llama import write_base
from transformers import AutoModelForCausalLM


@pytest.mark.parametrize("tied", [False, True])
def test_its_logits_are_those_of_transformers(tmp_path: Path, tied: bool) -> None:
    tokens = torch.tensor([[6, 7, 8, 9], [10, 11, 0, 0]])
    attended = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    base = write_base(tmp_path, tied=tied)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        expected, found = (
            one(input_ids=tokens, attention_mask=attended).logits
            for one in (model, held_model(base))
        )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_no_autocast(tmp_path: Path, error: type[BaseException]) -> None:
    model = held_model(write_base(tmp_path), autocast=True)
    tokens = torch.ones(1, 4, dtype=torch.int64)

    def stop(*_: object) -> None:
        assert torch.is_autocast_enabled("cpu")
        raise error

    assert not torch.is_autocast_enabled("cpu")
    model(input_ids=tokens)
    assert not torch.is_autocast_enabled("cpu")
    model.parts.embedding.register_forward_pre_hook(stop)
    with pytest.raises(error):
        model(input_ids=tokens)
    assert not torch.is_autocast_enabled("cpu")
