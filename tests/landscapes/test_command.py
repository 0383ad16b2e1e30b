"""``patchc landscape``: what it prints, draws and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from landscape_inputs import ASKING, OPTIONS, Look, World

from patchc.json_values import json_values
from patchc.landscapes import survey


def given(world: World, out: Path, *more: object) -> tuple[object, ...]:
    """The command that asks for what the fixture's run has measured."""
    sets = (word for name, path in world.sets.items() for word in (f"--{name}", path))
    places = {
        "--directions": OPTIONS.directions,
        "--points": OPTIONS.points,
        "--line-points": OPTIONS.line_points,
        "--line-end": OPTIONS.line_end,
        "--plane-points": OPTIONS.plane_points,
        "--seed": OPTIONS.seed,
        "--judge": ASKING.judge_name,
        "--max-new-tokens": ASKING.max_new_tokens,
        "--batch-size": ASKING.batch_size,
        "--dtype": ASKING.dtype,
        "--device": ASKING.device,
    }
    asked = (word for pair in places.items() for word in pair)
    return ("landscape", world.base, "--patch", world.patch, *sets, "-o", out, *asked, *more)


@pytest.fixture
def out(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The whole file, so that the command has nothing to measure."""

    def no_model(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(survey, "load_speaker", no_model)
    return Path(shutil.copy(look.path, tmp_path / "out.jsonl"))


def test_json_and_figures(world: World, look: Look, out: Path) -> None:
    figures = out.parent / "figures"
    code, printed, errors = run(*given(world, out, "--json", "--figures", figures))
    assert (code, errors) == (0, "")
    found: dict[str, Any] = json.loads(printed)
    assert found["report"] == json_values(look.report) | {"out": str(out)}
    names = ["directions.png", "line.png", "planes.png"]
    assert found["figures"] == [str(figures / name) for name in names]
    for name in names:
        content = (figures / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000


def test_tables(world: World, look: Look, out: Path) -> None:
    code, printed, errors = run(*given(world, out))
    assert (code, errors) == (0, "")
    told = " ".join(printed.split())
    assert "7 harmful, 5 harmless, 5 utility" in told
    for curve in look.report.curves:
        if curve.subject != "line":
            width = curve.half_widths["utility"]
            assert width is not None
            assert f"{curve.subject} {curve.direction} {curve.visage:.1f}" in told
            sides = ((width.left, width.open_left), (width.right, width.open_right))
            shown = (f"{'≥ ' if is_open else ''}{reached:g}" for reached, is_open in sides)
            assert ", ".join(shown) in told
    for point in look.report.curves[-1].points:
        assert f"{point.alpha:g} {100 * point.harmful.value:.1f} %" in told
    assert f"patchc report {world.patch}" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--points", "4"), "odd number"),
        (("--radius", "0"), "radius is 0"),
        (("--radius", "1e300"), "radius is 1e+300"),
        (("--line-end", "nan"), "line_end is nan"),
        (("--directions", "1"), "a plane needs two directions"),
        (("--plane-points", "2"), "at least 3"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_options_out_of_range(
    world: World, look: Look, out: Path, more: tuple[str, str], told: str
) -> None:
    code, printed, errors = run(*given(world, out, *more))
    assert (code, printed) == (2, "")
    assert told in errors
    assert "Traceback" not in errors
    assert out.read_bytes() == look.path.read_bytes()


def test_a_patch_that_is_damaged_or_of_another_base_begins_no_file(
    world: World, tmp_path: Path
) -> None:
    out, bad = tmp_path / "new.jsonl", tmp_path / "bad.patchc"
    content = bytearray(world.patch.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    for model, patch in ((world.base, bad), (world.tuned, world.patch)):
        words = [
            {world.base: model, world.patch: patch}.get(one, one)  # type: ignore[call-overload]
            for one in given(world, out)
        ]
        code, printed, errors = run(*words)
        assert code not in (0, 1, 2), errors
        assert (printed, out.exists()) == ("", False)
