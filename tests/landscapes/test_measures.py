"""What is found at a place, against one request at a time on another copy of the model, in fp64."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from direction_oracle import direction_of
from evaluate_inputs import HARMFUL, HARMLESS
from landscape_inputs import ASKING, OPTIONS, Look, World
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import patchc
from patchc.errors import DeriveError, NumericError, UnsupportedInputError
from patchc.evaluation.texts import is_degenerate
from patchc.landscapes import measuring_places

ASKED = {"harmful": HARMFUL, "harmless": HARMLESS}
ONE = replace(OPTIONS, directions=1, plane_points=0, line_points=0)
Lines = dict[str, dict[str, Any]]


def lines_of(path: Path, what: str, system: bool = False) -> Lines:
    """What a file holds at each place, by the place's JSON."""
    lines = map(json.loads, path.read_text().splitlines()[1:])
    return {
        json.dumps(line["at"]): line[what]
        for line in lines
        if what in line and line["system"] is system
    }


def moved(world: World, place: Mapping[str, float]) -> Any:
    """The model at a place, in fp64, with the weights that NumPy gives it."""
    model = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float64).eval()
    ends = [load_file(folder / "model.safetensors") for folder in (world.base, world.tuned)]
    for name, parameter in model.named_parameters():
        base, tuned = (end[name].double().numpy() for end in ends)
        at = base + place["patch"] * (tuned - base)
        for number, alpha in place.items():
            if number != "patch":
                at = at + alpha * direction_of(OPTIONS.seed, number, name, base)
        parameter.data.copy_(torch.from_numpy(at).float())
    return model


def prompt_of(world: World, text: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(world.base)
    written = f"<user> {text} <end> <assistant>"
    return torch.tensor([tokenizer.encode(written, add_special_tokens=False)])


def likely(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """log p of every token after each place."""
    with torch.inference_mode():
        found: torch.Tensor = torch.log_softmax(model(tokens).logits[0], dim=-1)
    return found


def say(model: Any, prompt: torch.Tensor) -> list[int]:
    """Greedy decoding, token by token, up to and with the end of turn."""
    spoken: list[int] = []
    while len(spoken) < ASKING.max_new_tokens and (not spoken or spoken[-1] != 2):
        tokens = torch.cat((prompt, torch.tensor([spoken], dtype=torch.int64)), dim=1)
        spoken.append(int(likely(model, tokens)[-1].argmax()))
    return spoken


@pytest.mark.parametrize("side", [0.0, 1.0], ids=["base", "patched"])
def test_without_moves_it_replies_as_evaluate_says(
    world: World, look: Look, tmp_path: Path, side: float
) -> None:
    folder = world.tuned if side else world.base
    results = tmp_path / "results.jsonl"
    found = patchc.evaluate([folder], **world.sets, options=ASKING, out=results).models[0]
    expected: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, results.read_text().splitlines()[1:]):
        expected.setdefault(line["set"], {})[line["prompt"]] = [line["reply"], line["verdict"]]
    here = lines_of(look.path, "replies")[json.dumps({"patch": side})]
    assert here.keys() == expected.keys()
    for name, path in world.sets.items():
        records = map(json.loads, path.read_text().splitlines())
        prompts = [one.get("prompt") or one["question"] for one in records]
        assert [reply[:2] for reply in here[name]] == [expected[name][one] for one in prompts]
    assert len({reply for reply, _ in expected["harmful"].values()}) > 2
    for curve in look.report.curves:
        if curve.subject == ("patched" if side else "base"):
            middle = curve.points[1]
            assert (middle.unrefused, middle.utility) == (found.harmful, found.utility)


def test_replies_and_their_coherence(world: World, look: Look) -> None:
    """By greedy decoding in fp64, and the mean of −log p, by the unmoved base, of new tokens."""
    base = moved(world, {"patch": 0.0})
    tokenizer = AutoTokenizer.from_pretrained(world.base)
    verdicts = []
    for at, replies in lines_of(look.path, "replies").items():
        if at not in ('{"patch": 0.0}', '{"patch": 1.0, "1": 0.5}', '{"patch": 0.75}'):
            continue
        model = moved(world, json.loads(at))
        for name, asked in ASKED.items():
            for text, (reply, verdict, coherent) in zip(asked, replies[name], strict=True):
                prompt = prompt_of(world, text)
                spoken = say(model, prompt)
                shown = tokenizer.decode([one for one in spoken if one != 2])
                assert reply == tokenizer.decode(spoken, skip_special_tokens=True).strip(), shown
                assert verdict == ("refused" if reply[:1] < "m" else "answered")
                tokens = torch.cat((prompt, torch.tensor([spoken])), dim=1)
                each = likely(base, tokens)[prompt.shape[1] - 1 : -1]
                costs = -each.gather(1, torch.tensor(spoken)[:, None])[:, 0]
                # Backwards, so that of equal tokens the first one stays.
                first = {token: place for place, token in reversed([*enumerate(spoken)])}
                cost = costs[[*first.values()]].mean().item()
                assert coherent == (not is_degenerate(reply) and cost <= math.log(24) / 2)
                verdicts.append((coherent, is_degenerate(reply)))
    assert len(verdicts) == 36
    assert {*verdicts} == {(True, False), (False, False), (False, True)}


def test_margins(world: World, look: Look) -> None:
    """The log-odds that the first token is one with which the base's refusals begin."""
    replies = lines_of(look.path, "replies")['{"patch": 0.0}']
    begun: dict[str, Counter[str]] = {"refused": Counter(), "answered": Counter()}
    for name in ASKED:
        for reply, verdict, coherent in replies[name]:
            if coherent:
                begun[verdict][reply.split()[0]] += 1
    refused, answered = begun["refused"], begun["answered"]
    openings = {one for one, count in refused.items() if count >= 9 * answered[one]}
    assert {*look.report.openings} == openings
    assert openings
    tokenizer = AutoTokenizer.from_pretrained(world.base)
    ids = tokenizer.convert_tokens_to_ids(sorted(openings))
    margins = lines_of(look.path, "margins")
    assert len(margins) == 18
    for at in ('{"patch": 0.0}', '{"patch": 1.0, "1": -0.5, "2": 0.5}'):
        model = moved(world, json.loads(at))
        for name, asked in ASKED.items():
            for text, found in zip(asked, margins[at][name], strict=True):
                p = likely(model, prompt_of(world, text))[-1].exp()[ids].sum().item()
                assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-3)


def test_system_messages(world: World, tmp_path: Path, look: Look) -> None:
    """Every place without it, as in a file that has none, and again with it, as evaluate has it."""
    out, results = tmp_path / "both.jsonl", tmp_path / "results.jsonl"
    asking = replace(ASKING, system="brew tea")
    report = world.look(out, options=ONE, asking=asking, patch=None)
    assert [(one.subject, one.direction, one.system) for one in report.curves] == [
        ("base", "1", False),
        ("base", "1", True),
    ]
    assert report.patch_root is None
    assert report.planes == report.openings == ()
    without, same = lines_of(out, "replies"), lines_of(look.path, "replies")
    assert without == {at: same[at] for at in without}
    patchc.evaluate([world.base], **world.sets, options=asking, out=results)
    said = {
        (line["set"], line["prompt"]): line["reply"]
        for line in map(json.loads, results.read_text().splitlines()[1:])
    }
    told = lines_of(out, "replies", system=True)
    assert told.keys() == without.keys()
    here = told['{"patch": 0.0}']
    assert here != without['{"patch": 0.0}']
    for name, asked in ASKED.items():
        assert [reply for reply, *_ in here[name]] == [said[name, one] for one in asked]


def test_no_weights_are_written_and_temporary_folders_go(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, seen = tmp_path / "scratch", []
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = {path: path.read_bytes() for path in world.base.iterdir()}

    def progress(event: patchc.ProgressEvent) -> None:
        if event.stage == "landscape":
            seen.extend(path.name for path in scratch.iterdir())
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        world.look(tmp_path / "out.jsonl", options=ONE, progress=progress)
    assert [name.startswith("patchc-landscape-") for name in seen] == [True]
    assert not [*scratch.iterdir()]
    assert {path: path.read_bytes() for path in world.base.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "out.jsonl"}


def never(_prompts: Any, replies: Any) -> list[bool]:
    """A judge for which nothing is a refusal."""
    return [False for _ in replies]


def test_a_quantised_model_is_not_moved(world: World, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(world.base, model)
    weights = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedInputError, match=f"'{name}' is quantised"):
        world.look(tmp_path / "landscape.jsonl", model=model, patch=None)
    assert not (tmp_path / "landscape.jsonl").exists()


def test_planes_need_refusals(world: World, tmp_path: Path) -> None:
    with pytest.raises(DeriveError, match=r"refusals are needed .* --plane-points 0"):
        world.look(tmp_path / "out.jsonl", patch=None, asking=replace(ASKING, judge=never))


def test_margins_that_are_none_end_the_run(
    world: World, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    whole = look.path.read_text().splitlines(keepends=True)
    out.write_text("".join(whole[:-1]))

    def margins(_model: Any, prompts: Any, _openings: Any) -> torch.Tensor:
        return torch.full((len(prompts),), math.nan)

    monkeypatch.setattr(measuring_places, "refusal_margin", margins)
    with pytest.raises(NumericError, match=r"margins are not finite at .*'2': 0\.5.*smaller"):
        world.look(out)
    assert out.read_text() == "".join(whole[:-1])
