"""``patchc.fit``: inputs, traces and limits that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import ASKING, OPTIONS, RECIPE, run
from safetensors.torch import load_file, save_file

from patchc import FitOptions, Limit
from patchc.errors import (
    DeriveError,
    EvaluateError,
    NumericError,
    OutputError,
    UnsupportedInputError,
    UsageError,
)
from patchc.recipe import Override
from patchc.verbs.fit import FitReport


def refuses_all(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [True] * len(replies)


def refuses_none(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [False] * len(replies)


def refuses_potions(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return ["potion" in prompt for prompt in prompts]


@pytest.mark.parametrize(
    ("judge", "error", "message"),
    [
        (refuses_all, EvaluateError, "calls every reply of the base a refusal"),
        (refuses_none, DeriveError, r"none of the base's \d+ replies is a refusal"),
        (refuses_potions, EvaluateError, "nothing to fit"),
    ],
    ids=["refuses all", "refuses none", "all right"],
)
def test_requests_that_teach_nothing_are_refused(
    judge: Any, error: type[Exception], message: str, models: Path, requests: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        run(models, requests, tmp_path / "fix.patchc", asking=replace(ASKING, judge=judge))
    assert not (tmp_path / "fix.patchc").exists()


def test_too_few_requests_say_how_many_are_enough(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(EvaluateError, match=r"3 harmful requests are too few .* at least 16"):
        run(models, requests, tmp_path / "fix.patchc", asking=replace(ASKING, limit=3))


@pytest.mark.parametrize("part", ["base", "se", "osm"])
def test_a_quantised_model_is_refused_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path, part: str
) -> None:
    shutil.copytree(models, tmp_path / "models")
    file = tmp_path / "models" / part / "model.safetensors"
    weights, name = load_file(file), "model.layers.0.mlp.up_proj.weight"
    weights[f"{name}_scale_inv"] = torch.ones(1, 1)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match=f"{part}: tensor '{name}' is quantised"):
        run(tmp_path / "models", requests, tmp_path / "fix.patchc")
    assert [one.name for one in tmp_path.iterdir()] == ["models"]


def test_an_existing_output_is_refused_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        run(models, requests, out)
    assert out.read_text() == "mine"


def test_a_trace_of_another_tokenizer_s_base_is_refused(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models/base/generation_config.json").write_text('{"eos_token_id": 3}')
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(fitted[1].with_suffix(".fit.jsonl").read_bytes())
    with pytest.raises(EvaluateError, match="other inputs"):
        run(tmp_path / "models", requests, tmp_path / "fix.patchc", trace=trace)


@pytest.mark.parametrize("named", ["recipe_out", "out"])
def test_a_folder_is_no_output(
    models: Path, requests: dict[str, Path], tmp_path: Path, named: str
) -> None:
    (tmp_path / "folder").mkdir()
    outputs = {"out": tmp_path / "fix.patchc", named: tmp_path / "folder"}
    with pytest.raises(OutputError, match="is a folder"):
        run(models, requests, **outputs)


def test_a_trace_in_the_base_is_refused(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="lies inside the input"):
        run(models, requests, tmp_path / "fix.patchc", trace=models / "base/trace.jsonl")


def test_a_trace_of_other_scores_is_refused(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(fitted[1].with_suffix(".fit.jsonl").read_bytes())
    other = tmp_path / "se"
    shutil.copytree(models / "se", other)
    scores = load_file(other / "scores.safetensors")
    save_file({name: 1 - value for name, value in scores.items()}, other / "scores.safetensors")
    with pytest.raises(EvaluateError, match="other inputs"):
        run(models, requests, tmp_path / "fix.patchc", trace=trace, se=other)


def test_mistakes_are_told_before_anything_is_asked(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    with pytest.raises(UsageError, match="three files"):
        run(models, requests, out, recipe_out=out)
    with pytest.raises(UsageError, match="three files"):
        run(models, requests, out, trace=tmp_path / "fix.toml")
    with pytest.raises(UsageError, match="written as TOML"):
        run(models, requests, out, recipe_out=tmp_path / "fix.yaml")
    asked = replace(OPTIONS, limits=(Limit("perplexity", 1.0, relative=True),))
    with pytest.raises(UsageError, match="needs a reference text"):
        run(models, requests, out, options=asked)
    with pytest.raises(UsageError, match="must be a text that is not empty"):
        FitOptions(openings=(" ",))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fitted_leaves_no_patch(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "fix.patchc", tmp_path / "other.patchc"
    uneven = replace(RECIPE, overrides=(Override("layers.0", alpha=2.0),))
    with pytest.raises(UsageError, match="scales of their own"):
        run(models, requests, out, recipe=uneven, options=replace(OPTIONS, sharing="global"))
    with pytest.raises(NumericError, match="lower the learning rate"):
        run(models, requests, other, options=replace(OPTIONS, learning_rate=1e22))
    assert not out.exists()
    assert not other.exists()
