"""What the public functions take and return: documented types, which programs can import."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import patchc
import patchc.torch

NAMES = {name: getattr(patchc, name) for name in patchc.__all__}
LIVE_NAMES = {name: getattr(patchc.torch, name) for name in patchc.torch.__all__}
EXPORTED = [*NAMES.values(), *LIVE_NAMES.values()]
VERBS = {
    name: one
    for name, one in NAMES.items()
    if inspect.isfunction(one)
    and name not in ("allow_downloads", "open_patch", "read_recipe", "model_card")
}
REPORTS = {"revert": "ApplyReport", "report": "PageReport"}
FUNCTIONS = [
    *(one for one in EXPORTED if inspect.isfunction(one)),
    patchc.torch.PreparedPatch.apply_,
    patchc.torch.PreparedPatch.revert_,
]
ELSEWHERE = {"builtins", "collections", "os", "pathlib", "typing", "numpy", "torch"}


def _hints(one: Any) -> dict[str, Any]:
    """Annotations, of which some name what only type checkers import."""
    return typing.get_type_hints(one, localns={"torch": torch, **NAMES, **LIVE_NAMES})


def _leaves(hint: Any) -> Iterator[type]:
    """The classes of an annotation."""
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and origin is not types.UnionType:
        yield origin
    for one in hint if isinstance(hint, list) else typing.get_args(hint):
        if isinstance(one, list) or typing.get_origin(one):
            yield from _leaves(one)
        elif isinstance(one, type):
            yield one
    if origin is None and isinstance(hint, type):
        yield hint


def _found() -> dict[type, str]:
    """Every class that a caller meets, in signatures and in the fields of others; and where."""
    found: dict[type, str] = {}
    todo = [
        (hint, f"{one.__name__}: {name}") for one in FUNCTIONS for name, hint in _hints(one).items()
    ]
    while todo:
        hint, place = todo.pop()
        for one in _leaves(hint):
            if one not in found:
                found[one] = place
                if dataclasses.is_dataclass(one):
                    todo += [(own, f"{one.__name__}.{n}") for n, own in _hints(one).items()]
    return found


FOUND = _found()
DATA = [one for one in FOUND if dataclasses.is_dataclass(one)]


def _documented(one: type) -> set[str]:
    """The names that docstrings explain under "Attributes", those of base classes included."""
    texts = [inspect.getdoc(base) or "" for base in one.__mro__ if dataclasses.is_dataclass(base)]
    names = set()
    for text in texts:
        section = text.partition("Attributes:\n")[2].partition("\n\nRaises:")[0]
        for group in re.findall(r"^    ((?:\w+,\s+)*\w+):", section, re.M):
            names |= set(re.split(r",\s+", group))
    return names


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_returns_a_report_of_its_name(name: str) -> None:
    report = _hints(VERBS[name])["return"]
    assert report is NAMES[REPORTS.get(name, f"{name.title().replace('_', '')}Report")]
    assert report.__dataclass_params__.frozen


def test_the_walk_reaches_what_it_should() -> None:
    assert {patchc.Change, patchc.Rate, patchc.MaskReport, patchc.torch.Slice} <= set(DATA)
    assert len(DATA) > 40


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one.__name__)
def test_each_type_can_be_imported(one: type) -> None:
    if one.__module__.split(".")[0] not in ELSEWHERE and one is not dataclasses.Field:
        assert any(one is own for own in EXPORTED), FOUND[one]


@pytest.mark.parametrize("one", DATA, ids=lambda one: one.__name__)
def test_each_field_is_documented_and_none_can_be_set(one: Any) -> None:
    assert {field.name for field in dataclasses.fields(one)} <= _documented(one)
    assert one.__dataclass_params__.frozen


@pytest.mark.parametrize("one", FUNCTIONS, ids=lambda one: one.__qualname__)
def test_each_function_explains_itself(one: Callable[..., Any]) -> None:
    """By itself, or by the function that it refers to for its arguments."""
    text = inspect.getdoc(one) or ""
    assert "\nRaises:\n" in text
    args = text.partition("\nArgs:\n")[2].partition("\n\nRaises:")[0]
    told = re.findall(r"^    ((?:\w+,\s+)*\w+):", args, re.M)
    names = {name for group in told for name in re.split(r",\s+", group)}
    taken = set(inspect.signature(one).parameters) - {"self"}
    assert names == taken or re.search(r"[Aa]rguments\s+and\s+errors", text) or "as :func:" in text
