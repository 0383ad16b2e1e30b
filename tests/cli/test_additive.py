"""Additive patches on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from additive_inputs import (
    ALPHA,
    BETA,
    LAYERS,
    RETAIN,
    SEED,
    TOP_OSM,
    TOP_SE,
    Inputs,
    merged,
    write_inputs,
)
from command_line import run
from component_records import write_record
from tiny_checkpoints import nudge, tree, write_model

from patchc.errors import UnsupportedInputError, UsageError, WrongBaseError


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(tmp_path / "inputs")


def build(inputs: Inputs, out: Path, *more: object) -> tuple[int, str, str]:
    return run(
        "build", inputs.paths["base"], "--se", inputs.paths["se"], "--osm", inputs.paths["osm"],
        "--retain", RETAIN, "--top-se", TOP_SE, "--top-osm", TOP_OSM, "--alpha", ALPHA,
        "--beta", BETA, "--seed", SEED, "-o", out, *more,
    )  # fmt: skip


@pytest.fixture
def patch(tmp_path: Path, inputs: Inputs) -> Path:
    assert build(inputs, tmp_path / "fix.patchc", "--values", "additive")[0] == 0
    return tmp_path / "fix.patchc"


@pytest.fixture
def further(tmp_path: Path, inputs: Inputs) -> Path:
    """The base with its first layer tuned further."""
    name = LAYERS[0]
    tensors = inputs.base | {name: nudge(inputs.base[name], 0.3, 21)}
    return write_model(tmp_path / "further", tensors, shards=2)


@pytest.mark.parametrize("value_type", ["bf16", "int8"])
def test_build_inspect_verify_and_apply_by_command(
    tmp_path: Path, inputs: Inputs, value_type: str
) -> None:
    patch = tmp_path / "fix.patchc"
    assert build(inputs, patch, "--values", "additive", "--value-type", value_type)[0] == 0
    text = run("inspect", patch)[1]
    assert f"additive, {value_type}" in text
    assert "not promised" in text
    assert f"α {ALPHA:g}, " in text
    assert f"β {BETA:g}, " in text
    described = json.loads(run("inspect", patch, "--json")[1])
    assert described["additive"]["value_type"] == value_type
    assert [c["name"] for c in described["additive"]["components"]] == ["se", "osm"]
    assert run("verify", patch)[0] == 0
    assert run("verify", patch, inputs.paths["base"])[0] == 0
    code, text, _ = run("apply", patch, inputs.paths["base"], "-o", tmp_path / "patched")
    assert code == 0
    assert "as promised" not in text
    assert "revert cannot take additive values back" in text
    wanted = write_model(tmp_path / "wanted", merged(inputs.base, inputs, value_type), shards=2)
    assert tree(tmp_path / "patched") == tree(wanted)


def test_bf16_is_the_default_and_ulp_that_of_values(
    tmp_path: Path, inputs: Inputs, patch: Path
) -> None:
    assert json.loads(run("inspect", patch, "--json")[1])["additive"]["value_type"] == "bf16"
    assert build(inputs, tmp_path / "exact.patchc")[0] == 0
    assert json.loads(run("inspect", tmp_path / "exact.patchc", "--json")[1])["additive"] is None
    assert "exact steps" in run("inspect", tmp_path / "exact.patchc")[1]


def test_other_scales_are_applied(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    code, text, _ = run(
        "apply", patch, inputs.paths["base"], "-o", tmp_path / "patched", "--alpha", 2,
        "--beta", -0.5,
    )  # fmt: skip
    assert code == 0
    assert "se 2, osm -0.5" in text
    model = merged(inputs.base, inputs, "bf16", (2.0, -0.5))
    assert tree(tmp_path / "patched") == tree(write_model(tmp_path / "w", model, shards=2))


def test_a_descendant_is_reported_in_text_and_json(
    tmp_path: Path, patch: Path, further: Path
) -> None:
    code, text, _ = run("apply", patch, further, "-o", tmp_path / "a", "--onto-descendant")
    assert code == 0
    assert f"tensors that differ from the base: 1 ({LAYERS[0]})" in text
    report = json.loads(
        run("apply", patch, further, "-o", tmp_path / "b", "--onto-descendant", "--json")[1]
    )
    assert report["merged"]["differing_tensors"] == 1
    assert report["merged"]["first_differing"] == [LAYERS[0]]
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("apply", "fix.patchc", "further", "-o", "x"), WrongBaseError, "--onto-descendant"),
        (("verify", "fix.patchc", "further"), WrongBaseError, LAYERS[0]),
        (("revert", "fix.patchc", "further", "-o", "x"), UnsupportedInputError, "taken back"),
        (
            ("apply", "fix.patchc", "further", "-o", "x", "--alpha", "nan"),
            UsageError,
            "alpha is nan",
        ),
    ],
)
def test_failures_print_one_message_and_their_code(
    tmp_path: Path,
    patch: Path,
    further: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    error: type[UsageError],
    message: str,
) -> None:
    assert patch.exists()
    assert further.exists()
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == error.exit_code
    assert err.startswith("patchc: error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not Path("x").exists()


def test_verify_says_what_it_cannot_recognise(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    run("apply", patch, inputs.paths["base"], "-o", tmp_path / "patched")
    code, text, _ = run("verify", patch, tmp_path / "patched")
    assert code == WrongBaseError.exit_code
    assert "not the base" in text
    assert "cannot be recognised" in text


@pytest.mark.parametrize("option", [("--alpha", "2"), ("--beta", "0"), ("--onto-descendant",)])
def test_an_exact_patch_says_why_it_takes_no_option(
    tmp_path: Path, inputs: Inputs, option: tuple[str, ...]
) -> None:
    build(inputs, tmp_path / "exact.patchc")
    arguments = (tmp_path / "exact.patchc", inputs.paths["base"], "-o", tmp_path / "x", *option)
    code, _, err = run("apply", *arguments)
    assert code == UsageError.exit_code
    assert "holds exact steps" in err
    assert option[0].removeprefix("--") in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "options", [("--values", "exact"), ("--value-type", "bf16"), ("--value-type", "fp4")]
)
def test_build_options_that_do_not_fit(
    tmp_path: Path, inputs: Inputs, options: tuple[str, ...]
) -> None:
    assert build(inputs, tmp_path / "no.patchc", *options)[0] == UsageError.exit_code
    assert not (tmp_path / "no.patchc").exists()


def test_scales_that_differ_by_tensor(tmp_path: Path, inputs: Inputs) -> None:
    """The patch states scales of 1, and --alpha 2 is twice those of the recipe."""
    recipe = tmp_path / "fitted.toml"
    recipe.write_text(
        f"retain = {RETAIN}\ntop_se = {TOP_SE}\ntop_osm = {TOP_OSM}\nseed = {SEED}\n"
        "alpha = 2\nbeta = -3\n"
        f"[[overrides]]\nmatch = '{LAYERS[1]}'\nalpha = -1.5\nbeta = 7.25\n"
    )
    for part in ("se", "osm"):
        write_record(inputs.paths[part], inputs.paths["base"], part)
    code, _, err = run(
        "build", inputs.paths["base"], "--se", inputs.paths["se"], "--osm", inputs.paths["osm"],
        "--recipe", recipe, "--values", "additive", "-o", tmp_path / "fix.patchc",
    )  # fmt: skip
    assert (code, err) == (0, "")
    text = run("inspect", tmp_path / "fix.patchc")[1]
    assert "α 1, " in text
    assert "β 1, " in text
    arguments = (tmp_path / "fix.patchc", inputs.paths["base"], "-o", tmp_path / "patched")
    assert run("apply", *arguments, "--alpha", 2)[0] == 0
    own = {LAYERS[0]: (2.0, -3.0), LAYERS[1]: (-1.5, 7.25)}
    model = merged(inputs.base, inputs, "bf16", (2.0, 1.0), own=own)
    assert tree(tmp_path / "patched") == tree(write_model(tmp_path / "w", model, shards=2))
