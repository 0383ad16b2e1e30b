"""The base as transformers loads it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import tiny_llama
import torch

from patchc.derivation.base_model import load_model


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_forward_pass_leaves_no_autocast(
    tmp_path: Path, error: type[BaseException]
) -> None:
    base = tiny_llama.write_base(tmp_path / "base")
    tokens = torch.ones(1, 4, dtype=torch.int64)

    def stop(*_: object) -> None:
        assert torch.is_autocast_enabled("cpu")
        raise error

    with ExitStack() as passes:
        model = load_model(base, torch.device("cpu"), torch.float32, "bfloat16", passes)
        assert not torch.is_autocast_enabled("cpu")
        model(tokens)
        assert not torch.is_autocast_enabled("cpu")
        model.get_input_embeddings().register_forward_pre_hook(stop)
        with pytest.raises(error):
            model(tokens)
    assert not torch.is_autocast_enabled("cpu")
