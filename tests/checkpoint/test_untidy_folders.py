"""The tensors that patchc takes from an untidy folder are those that transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import Raw, nudge, read_model, write_model
from tiny_llama import write_base
from transformers import AutoModelForCausalLM
from untidy_folders import CASES, INDEX, ONE, Folder

from patchc.checkpoint import open_checkpoint
from patchc.checkpoint.files_beside import take_all
from patchc.errors import CheckpointError, UnsupportedInputError


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = write_base(tmp_path_factory.mktemp("tidy") / "model")
    right = read_model(path)
    (path / "model.safetensors").unlink()
    words = {name: np.frombuffer(one.data, np.uint16) for name, one in right.items()}
    wrong = {
        name: Raw(one.dtype, one.shape, nudge(words[name], 1, 0).tobytes())
        for name, one in right.items()
    }
    return Folder(path, right, wrong)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _loaded(folder: Path) -> tuple[dict[str, bytes], set[str]] | None:
    """Names and bytes that transformers loads, and names that it finds and does not need."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", output_loading_info=True
        )
    except Exception:
        return None
    state = {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in model.state_dict().items()
        if name not in info["missing_keys"]
    }
    return state, set(info["unexpected_keys"])


def _taken(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    with open_checkpoint(folder) as model:
        found: dict[str, Any] = {}
        for name, info in model.tensors.items():
            words = model.read_words(info, 0, np.empty(info.words, info.dtype.word))
            found[name] = words.tobytes()
        return found, [one.name for one in model.left_aside]


@pytest.mark.parametrize("kind", CASES)
def test_what_is_taken_is_what_is_loaded(kind: str, tidy: Folder, tmp_path: Path) -> None:
    case, folder = CASES[kind], tmp_path / "model"
    shutil.copytree(tidy.path, folder)
    case.make(Folder(folder, tidy.right, tidy.wrong))
    loaded = _loaded(folder)
    assert (loaded is not None) == case.loads
    if case.refused is not None:
        with pytest.raises((CheckpointError, UnsupportedInputError), match=case.refused):
            open_checkpoint(folder)
        return
    assert loaded is not None
    state, unexpected = loaded
    taken, left = _taken(folder)
    assert {name: taken.get(name) for name in state} == state
    assert set(taken) == set(state) | unexpected
    assert sorted(left) == sorted(case.left)


def test_what_is_left_aside_is_told(
    tidy: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path / "model", tidy.right, tidy.wrong)
    folder.shards()
    folder.index(ghost=ONE)
    folder.single("mtp.safetensors")
    folder.single("sub/a.safetensors")
    with caplog.at_level("INFO", "patchc"), open_checkpoint(folder.path):
        pass
    assert caplog.messages == [
        f"{folder.path / INDEX}: lists tensor 'ghost', which none of its files holds; loaders go "
        "on without",
        f"{folder.path}: left aside, in copies too, since it is not the model: mtp.safetensors "
        f"({INDEX} does not name it); sub/a.safetensors (in a folder below, where loaders do not "
        "look)",
    ]


def test_scores_beside_a_component_are_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor when they are looked at since they may belong to the release: they never do."""
    weights = {"w": np.zeros(3, np.float32)}
    write_model(tmp_path, weights)
    write_model(tmp_path, weights, stem="scores")
    with caplog.at_level("INFO", "patchc"):
        for stem, beside in (("model", None), ("model", take_all), ("scores", None)):
            with open_checkpoint(tmp_path, stem, beside) as model:
                assert list(model.shards) == [f"{stem}.safetensors"]
    assert caplog.messages == []
