"""Fits whose memory is bounded: the same trace, recipe and patch, with two layers at a time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fit_runs import OPTIONS, run
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

from patchc.cli.main import app
from patchc.errors import UsageError
from patchc.fitting.live_weights import Overlay
from patchc.fitting.memory import Room, Way, Work
from patchc.recipe import MergeRecipe
from patchc.verbs.fit import FitReport

WAYS = {
    "recomputed": Way(),
    "streamed with the head": Way(streams=True, holds_head=True),
    "streamed": Way(streams=True),
}


@pytest.fixture(params=WAYS)
def bounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Fits with no room for graphs, or with none for the model either."""
    bound(monkeypatch, request.param)
    return str(request.param)


def bound(monkeypatch: pytest.MonkeyPatch, way: str = "streamed") -> None:
    def choose(work: Work, _memory: int, _device: int) -> Room:
        return Room(work, WAYS[way], 0)

    def refuse(*_: object) -> None:
        raise AssertionError("the whole model is loaded")

    monkeypatch.setattr("patchc.fitting.opening.choose", choose)
    if WAYS[way].streams:
        monkeypatch.setattr("patchc.fitting.opening.load_speaker", refuse)


def without_seconds(trace: Path) -> list[Any]:
    def dropped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: dropped(one) for key, one in value.items() if key != "seconds"}
        return value

    return [dropped(json.loads(line)) for line in trace.read_text().splitlines()]


def outputs(out: Path) -> tuple[bytes, str, list[Any]]:
    """The patch, the recipe and the trace of a fit."""
    recipe = out.with_suffix(".toml").read_text()
    return out.read_bytes(), recipe, without_seconds(out.with_suffix(".fit.jsonl"))


def test_the_trace_and_the_patch_are_those_of_all_in_memory(
    bounded: str, fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / f"{bounded}.patchc"
    report = run(models, requests, out)
    assert outputs(out) == outputs(fitted[1])
    assert report.fitted.losses == fitted[0].fitted.losses


@pytest.mark.parametrize(
    ("texts", "bounded_way"), [("answers", "streamed"), ("reference", "streamed with the head")]
)
def test_answers_and_a_reference_text_too(
    texts: str, bounded_way: str, models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    given: dict[str, Any] = dict(requests)
    if texts == "answers":
        lines = [json.loads(line) for line in requests["harmless"].read_text().splitlines()]
        answered = [line | {"response": "mix sage with ash"} for line in lines]
        given["harmless"] = tmp_path / "answered.jsonl"
        given["harmless"].write_text("".join(json.dumps(line) + "\n" for line in answered))
    else:
        given["reference"] = tmp_path / "text.txt"
        given["reference"].write_text("how do I mix a tea with ash with sage " * 20)
    options = replace(OPTIONS, steps=3, candidates=1)
    recipe = MergeRecipe("dare", density=0.5)
    tuned = [models / "se", models / "osm"]
    found = []
    for way in ("held", bounded_way):
        out = tmp_path / f"{way}.patchc"
        with pytest.MonkeyPatch.context() as patching:
            if way == bounded_way:
                bound(patching, way)
            run(
                models, given, out, se=None, osm=None, tuned=tuned, recipe=recipe, options=options,
            )  # fmt: skip
        found.append(outputs(out))
    assert found[0] == found[1]


def test_a_fit_that_was_held_goes_on_streamed(
    fitted: tuple[FitReport, Path], models: Path, requests: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lines = fitted[1].with_suffix(".fit.jsonl").read_bytes().splitlines(keepends=True)
    out = tmp_path / "fix.patchc"
    out.with_suffix(".fit.jsonl").write_bytes(b"".join(lines[:6]))
    bound(monkeypatch)
    run(models, requests, out)
    assert outputs(out) == outputs(fitted[1])


def test_two_layers_are_held_and_no_whole_embedding(
    models: Path, requests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: set[int] = set()
    longest: dict[str, int] = {}
    read = Overlay.read

    def seen(self: Overlay, name: str, first: int, out: Tensor) -> None:
        if ".layers." in name:
            places.add(out.untyped_storage().data_ptr())
        longest[name] = max(longest.get(name, 0), out.numel())
        read(self, name, first, out)

    bound(monkeypatch)
    monkeypatch.setattr(Overlay, "read", seen)
    run(models, requests, tmp_path / "fix.patchc", options=replace(OPTIONS, steps=2, candidates=1))
    assert len(places) == 2
    assert longest["model.embed_tokens.weight"] == 16
    with safe_open(models / "base/model.safetensors", framework="pt") as base:
        assert set(base.keys()) == longest.keys()


def test_too_small_a_budget_is_refused_with_the_least(
    models: Path, requests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise it grows from one run to the next.
    monkeypatch.setattr("patchc.fitting.opening.process_memory", lambda: 300 << 20)
    out = tmp_path / "fix.patchc"
    options = replace(OPTIONS, steps=1, candidates=1)
    with pytest.raises(UsageError, match=r"at least [\d,]+ bytes of memory") as caught:
        run(models, requests, out, options=options, max_memory=1)
    least = int("".join(re.findall(r"at least ([\d,]+)", str(caught.value))).replace(",", ""))
    with pytest.raises(UsageError, match=f"at least {least:,} bytes"):
        run(models, requests, out, options=options, max_memory=least - 1)
    assert not out.exists()
    run(models, requests, out, options=options, max_memory=least)
    assert out.exists()


def test_the_command_takes_a_budget(
    models: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "fix.patchc"
    arguments = [
        "fit", models / "base", "--se", models / "se", "--osm", models / "osm", "-o", out,
        "--judge", "fit_inputs:says_ash", "--max-new-tokens", 5, "--max-memory", "100MB",
        *(part for name, path in requests.items() for part in (f"--{name}", path)),
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == UsageError.exit_code
    assert "(max_memory), and may take 100,000,000; allow more" in result.stderr
    assert not out.exists()
    with pytest.raises(UsageError, match="max_memory is 0; it must be"):
        run(models, requests, out, max_memory=0)
