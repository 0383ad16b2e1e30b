"""From lines written by hand to curves and planes; files that are damaged or hostile."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from landscape_inputs import Look
from landscape_lines import COUNTS, DAMAGED, HEADER, HEADERS, TEXT, changed, margins, said, write

import patchc
from patchc.errors import EvaluateError
from patchc.evaluation.rates import Rate
from patchc.landscapes.curves import HalfWidth, Landscape
from patchc.landscapes.findings import read_landscape

LINES = [
    said("rrra", "aa", "++"),
    said("rrrr", "ar", patch=1.0),
    said("rRaA", "aA", d1=-0.5),
    said("aaam", "rm", "--", d1=0.5),
    said("rrra", "aa", d1=-0.5, patch=1.0),
    said("rrra", "aa", d1=0.5, patch=1.0),
    said("rraa", "aa", patch=0.5),
    said("rraa", "aa", patch=2.0),
    said("aaaa", "aa", system=True),
]


def test_rates(tmp_path: Path) -> None:
    found = read_landscape(write(tmp_path / "l.jsonl", *LINES))
    assert (found.base_digest, found.patch_root) == ("ab" * 32, "cd" * 32)
    assert (found.judge, found.seed, found.requests) == ("phrases", 3, COUNTS)
    named = {(one.subject, one.direction, one.system): one for one in found.curves}
    assert [*named] == [("base", "1", False), ("patched", "1", False), ("line", "patch", False)]
    base = named["base", "1", False]
    left, middle, right = base.points
    assert [one.alpha for one in base.points] == [-0.5, 0.0, 0.5]
    assert (left.refused, left.harmful, left.incoherent) == (Rate(1, 4), Rate(1, 4), Rate(2, 4))
    assert (left.over_refusal, left.answered, left.incoherent_harmless) == (
        Rate(0, 2),
        Rate(1, 2),
        Rate(1, 2),
    )
    assert (left.unrefused, left.without_phrase) == (Rate(2, 4), Rate(2, 4))
    assert (right.harmful, right.over_refusal, right.answered) == (
        Rate(4, 4),
        Rate(1, 2),
        Rate(0, 2),
    )
    assert (middle.utility, right.utility) == (Rate(2, 2), Rate(0, 2))
    assert base.visage == pytest.approx((50 + 75 + 0) / 3)
    assert base.half_widths == {
        "harmful": HalfWidth(0.0, 0.0, open_left=False, open_right=False),
        "over_refusal": HalfWidth(0.5, 0.0, open_left=True, open_right=False),
        "utility": HalfWidth(0.5, 0.0, open_left=True, open_right=False),
    }
    patched = named["patched", "1", False]
    assert patched.visage == pytest.approx((75 + 100 + 75) / 3)
    assert patched.visage_by_phrases == patched.visage
    line = named["line", "patch", False]
    assert [one.alpha for one in line.points] == [0.0, 0.5, 1.0, 2.0]
    assert (line.visage, line.visage_by_phrases, line.half_widths) == (None, None, {})


def test_uneven_points_have_no_visage(tmp_path: Path) -> None:
    lines = [*LINES, said("rrra", "aa", d1=0.25)]
    for alpha in (-0.25, -0.5):
        base = read_landscape(write(tmp_path / "l.jsonl", *lines)).curves[0]
        assert len(base.points) == 4 + (alpha == -0.5)
        assert (base.visage is None) == (alpha == -0.25)
        assert base.half_widths["utility"] == HalfWidth(0.5, 0.25, True, False)
        lines.append(said("rrra", "aa", d1=-0.25))


def test_directions_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    more = [
        said("rrra", "aa", **{f"d{number}": alpha}) for number in (10, 2) for alpha in (0.5, -0.5)
    ]
    found = read_landscape(write(tmp_path / "l.jsonl", *more, *LINES))
    assert [one.direction for one in found.curves if one.subject == "base"] == ["1", "2", "10"]


def grid(*alphas: float, patch: float = 0.0) -> list[dict[str, Any]]:
    return [
        margins([x, 1.5, -y, 2.0], [y - 1, -0.5], patch=patch)
        | {"at": {"patch": patch, **{n: a for n, a in (("1", x), ("2", y)) if a}}}
        for y in alphas
        for x in alphas
    ]


def test_planes(tmp_path: Path) -> None:
    lines = [*grid(-0.5, 0.0, 0.5), *grid(-1.0, 0.0, 1.0, patch=1.0)]
    base, patched = read_landscape(write(tmp_path / "l.jsonl", *lines)).planes
    assert (base.subject, patched.subject) == ("base", "patched")
    assert (base.directions, base.system, base.alphas) == (("1", "2"), False, (-0.5, 0.0, 0.5))
    for row, y in enumerate(base.alphas):
        for column, x in enumerate(base.alphas):
            assert base.harmful[row][column] == (x + 1.5 - y + 2) / 4
            assert base.harmless[row][column] == (y - 1.5) / 2
            assert base.refusing[row][column] == ((x > 0) + 1 + (y < 0) + 1) / 4
            assert base.over_refusing[row][column] == 0
    assert patched.alphas == (-1.0, 0.0, 1.0)


def test_unfinished_and_mixed_planes(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    whole = grid(-0.5, 0.0, 0.5)
    for kept in range(len(whole)):
        assert read_landscape(write(path, *whole[:kept])).planes == ()
    finer = grid(-0.5, -0.25, 0.0, 0.25, 0.5)
    for kept in range(len(finer) - 1):
        planes = read_landscape(write(path, *whole, *finer[:kept])).planes
        assert {one.alphas for one in planes} <= {(-0.5, 0.0, 0.5)}
    seven = grid(*(round(number / 6, 12) for number in range(-3, 4)))
    for lines, points in ((finer, 5), ([*whole, *finer], 5), ([*finer, *seven], 7)):
        (plane,) = read_landscape(write(path, *lines)).planes
        assert len(plane.alphas) == points


def test_the_report_is_what_the_file_says(look: Look) -> None:
    found = read_landscape(look.path)
    for one in fields(Landscape):
        assert getattr(found, one.name) == getattr(look.report, one.name), one.name
    assert len(found.curves) == 5
    assert len(found.planes) == 2


@pytest.mark.parametrize("cut", ['{"at": {"pat', "\x00\x00", '{"at"'])
def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path, cut: str) -> None:
    whole = read_landscape(write(tmp_path / "l.jsonl", *LINES))
    text = (tmp_path / "l.jsonl").read_text() + cut
    (tmp_path / "l.jsonl").write_text(text)
    assert read_landscape(tmp_path / "l.jsonl") == whole
    assert (tmp_path / "l.jsonl").read_text() == text


def is_told(path: Path, line: int) -> None:
    before = path.read_bytes()
    with pytest.raises(EvaluateError) as told:
        read_landscape(path)
    assert str(told.value).startswith(f"{path}:{line}: not a line of landscape results (")
    assert "patchc landscape" in str(told.value)
    assert len(str(told.value)) < 600
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / "l.jsonl"
    is_told(write(path, *LINES[:2], DAMAGED[name], LINES[3]), 4)
    is_told(write(path, DAMAGED[name]), 2)


@pytest.mark.parametrize("name", HEADERS)
def test_first_lines_that_are_none(tmp_path: Path, name: str) -> None:
    is_told(write(tmp_path / "l.jsonl", header=HEADERS[name]), 1)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    for content in (b"", b"x", b"\n", b'{"kind": "landscape"'):
        path.write_bytes(content)
        is_told(path, 1)
    for content in (b"\xff\xfe\n", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(EvaluateError, match="not UTF-8"):
            read_landscape(path)
    with pytest.raises(EvaluateError, match="cannot read"):
        read_landscape(tmp_path / "none")


def test_texts_of_strangers_are_values_like_others(tmp_path: Path) -> None:
    header = changed(HEADER, "inputs", "judge", to=TEXT)
    line = changed(LINES[0], "replies", "harmful", 0, to=[TEXT, "refused", True])
    found = read_landscape(write(tmp_path / "l.jsonl", line, header=header))
    assert found.judge == TEXT
    assert found.curves == ()


def test_a_place_that_stands_twice_counts_once(tmp_path: Path) -> None:
    """The last one, as when a run goes on."""
    found = read_landscape(write(tmp_path / "l.jsonl", said("aaaa", "aa", d1=-0.5), *LINES))
    assert found == read_landscape(write(tmp_path / "l.jsonl", *LINES))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"directions": 0}, "directions is 0"),
        ({"directions": 101}, "directions is 101"),
        ({"directions": 1}, "plane needs two directions"),
        ({"points": 1}, "at least 3"),
        ({"points": 4}, "odd number"),
        ({"points": 1003}, "points is 1003"),
        ({"points": True}, "points is True"),
        ({"plane_points": 4}, "odd number"),
        ({"plane_points": 1}, "at least 3"),
        ({"line_points": 2}, "at least 3"),
        ({"line_points": -1}, "line_points is -1"),
        *(
            ({name: value}, name)
            for name in ("radius", "line_end")
            for value in (0, -1, 1e-7, 1e7, 1e308, float("nan"), float("inf"), "1", None, True)
        ),
        *(({"seed": value}, "seed") for value in (-1, 2**64, 1.0, True)),
    ],
)
def test_options_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(patchc.UsageError, match=told):
        patchc.LandscapeOptions(**options)
