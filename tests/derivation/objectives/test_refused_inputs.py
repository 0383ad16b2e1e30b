"""Which files and models an objective accepts, and its command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from objective_inputs import (
    HARMFUL,
    HARMLESS,
    REFUSAL,
    judge,
    options_of,
    prompts,
    refuse_all,
)
from tiny_llama import write_data

import patchc
from patchc.derivation.derive_options import Objective
from patchc.errors import DeriveError, EvaluateError, PatchcError, UsageError
from patchc.progress import ProgressEvent


def test_one_folder_of_either_objective_makes_a_pair(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    pairs = [{"prompt": prompt, "response": "mix tea"} for prompt in HARMLESS]
    answers = write_data(tmp_path / "answers.jsonl", pairs)
    work = tmp_path / "work"
    patchc.derive(base, files["data"], work, options=options_of("refusals"), judge=judge)
    patchc.derive(base, None, work, harmless=answers, options=options_of("answers"))
    report = patchc.build(base, se=work / "se", osm=work / "osm", out=tmp_path / "a.patchc")
    assert report.entries > 0


@pytest.mark.parametrize(
    ("objective", "given", "error", "message"),
    [
        ("pair", (), UsageError, "objective pair needs the harmful requests; name them as data"),
        ("margin", ("data",), UsageError, "needs the harmless requests"),
        ("margin", ("harmless",), UsageError, "needs the harmful requests"),
        (
            "npo",
            ("data", "harmless"),
            UsageError,
            "harmless is given, and objective npo takes data",
        ),
        ("answers", ("data", "harmless"), UsageError, "data is given"),
        ("pair", ("data", "anchor"), UsageError, "its weight is 0"),
    ],
)
def test_files_that_do_not_fit_the_objective_are_refused(
    files: dict[str, Path],
    tmp_path: Path,
    objective: Objective,
    given: tuple[str, ...],
    error: type[PatchcError],
    message: str,
) -> None:
    named: dict[str, Any] = {"data": None} | {name: files[name] for name in given}
    with pytest.raises(error, match=message):
        patchc.derive("base", out=tmp_path / "work", options=options_of(objective), **named)


def test_a_weight_without_an_anchor_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text to anchor on"):
        patchc.derive(
            "base", files["answered"], tmp_path, options=options_of("pair", anchor_weight=1.0)
        )


def lenient(prompts: Sequence[str], _replies: Sequence[str]) -> list[str]:
    return ["answered"] * len(prompts)


def harsh_on_harmless(prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return ["tea" in prompt for prompt in prompts]


def broken(_prompts: Sequence[str], _replies: Sequence[str]) -> list[bool]:
    return []


@pytest.mark.parametrize(
    ("objective", "chosen", "changes", "error", "message"),
    [
        ("margin", lenient, {}, DeriveError, "refuses none of the 8 requests"),
        (
            "margin",
            lenient,
            {},
            DeriveError,
            r"It says \"I how I\" and .*--judge module:function, see docs/how-to/measure-a-model",
        ),
        (
            "margin",
            lenient,
            {"openings": ("mix",)},
            DeriveError,
            'does not call the named openings refusals either.*It says "I how I"',
        ),
        ("margin", refuse_all, {}, DeriveError, "calls all of the base's 8 replies refusals"),
        ("margin", harsh_on_harmless, {"openings": ("do",)}, DeriveError, "nothing to anchor on"),
        ("margin", broken, {}, EvaluateError, "gave"),
        ("margin", "no_such_module:judge", {}, UsageError, "cannot import"),
        ("margin", judge, {"max_length": 4}, DeriveError, "do not fit a length of 4"),
        ("refusals", lenient, {}, DeriveError, "refuses 0 of 4 requests"),
    ],
)
def test_what_shows_in_the_bases_replies_ends_it_before_any_tuning(
    base: Path,
    files: dict[str, Path],
    tmp_path: Path,
    objective: Objective,
    chosen: Any,
    changes: dict[str, Any],
    error: type[PatchcError],
    message: str,
) -> None:
    events: list[ProgressEvent] = []
    with pytest.raises(error, match=message):
        patchc.derive(
            base,
            files["data"],
            tmp_path / "work",
            harmless=files["harmless"] if objective == "margin" else None,
            options=options_of(objective, **changes),
            judge=chosen,
            progress=events.append,
        )
    assert not [event for event in events if event.stage.startswith("tune")]
    assert not (tmp_path / "work").exists()


def knows_other_words(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [reply.startswith("sage with ash") for reply in replies]


def test_openings_that_the_judge_knows_may_teach_what_the_base_never_says(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    report = patchc.derive(
        base,
        files["data"],
        tmp_path / "work",
        harmless=files["harmless"],
        options=options_of("margin", openings=("sage with ash",)),
        judge=knows_other_words,
    )
    assert report.openings == ("sage with ash",)


@pytest.mark.parametrize("objective", ["pair", "refusals"])
def test_a_judge_that_is_named_must_exist_even_where_it_is_not_asked(
    objective: Objective, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"refusal": REFUSAL} if objective == "refusals" else {}
    with pytest.raises(UsageError, match="judge no_such_module:judge: cannot import"):
        patchc.derive(
            base, files["answered"], tmp_path / "work", options=options_of(objective, **changes),
            judge="no_such_module:judge",
        )  # fmt: skip


@pytest.mark.parametrize("objective", ["refusals", "margin"])
def test_a_reply_must_fit_the_models_length(
    objective: Objective, base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """The model has 64 positions; a reply takes 32, and a refusal that is sought what is left."""
    asked = tmp_path / "long.jsonl"
    harmless = files["harmless"] if objective == "margin" else None
    for words, fits in ((29, True), (30, False)):
        prompts(asked, [*HARMFUL, " ".join(["tea"] * words)])
        out = tmp_path / str(words)
        make = partial(
            patchc.derive, base, asked, out, harmless=harmless, options=options_of(objective),
            judge=judge,
        )  # fmt: skip
        if fits:
            make()
        else:
            with pytest.raises(DeriveError, match=r"long\.jsonl:5: 33 prompt tokens leave no room"):
                make()
            assert not out.exists()


def test_no_longer_refusal_is_sought_than_fits(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(DeriveError, match=r"no refusal ends within 55 tokens"):
        patchc.derive(base, files["data"], tmp_path, options=options_of("refusals"), judge=lenient)


def test_the_command_line_derives_the_margin_and_tells_the_openings(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    code, shown, error = run(
        "derive", base, "--objective", "margin", "--data", files["data"],
        "--harmless", files["harmless"], "--opening", "I how", "--anchor", files["anchor"],
        "--anchor-weight", 0.2, "--margin-steps", 2, "--margin-learning-rate", 1e-4,
        "--batch-size", 4, "--device", "cpu", "--judge", "objective_inputs:judge",
        "-o", tmp_path / "work",
    )  # fmt: skip
    assert code == 0, error
    assert "'I how'" in shown
    assert "margin" in shown
    written = json.loads((tmp_path / "work/margin/derive.json").read_text())
    assert written["options"]["anchor_weight"] == 0.2
    assert written["options"]["margin"] == {
        "learning_rate": 1e-4, "steps": 2, "epochs": None, "batch_size": 4, "clip": 1.0,
        "loss_ceiling": None,
    }  # fmt: skip


def test_the_help_names_every_objective_and_its_options() -> None:
    code, shown, _ = run("derive", "--help")
    assert code == 0
    for word in (
        "pair", "refusals", "answers", "npo", "margin", "--harmless", "--anchor", "--refusal",
        "--opening", "--npo-beta", "--margin-steps", "--margin-target", "--judge", "Example:",
    ):  # fmt: skip
        assert word in shown
