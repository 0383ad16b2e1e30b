"""The reference has every command, option, public name and parameter, and says what each is."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest
from api_pages import api_page, grouped, public_names
from command_pages import command_names, command_page, commands_page, parameters_of

import patchc
import patchc.torch

MODULES = [patchc, patchc.torch]
NAMES = [
    (module, name)
    for module in MODULES
    for name in public_names(module.__name__)
    if isinstance(getattr(module, name), type) or inspect.isroutine(getattr(module, name))
]
"""Functions and classes; what another kind of name is, its module's source says."""
_OF_ANOTHER = re.compile(r"(?:those of|as) :func:`(?:[\w.]+\.)?(\w+)`")
_ENTRY = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:,\s*\w+)*):(?:\s|$)", re.MULTILINE)


@pytest.mark.parametrize("name", command_names())
def test_every_option_of_a_command_is_explained(name: str) -> None:
    page = command_page(name)
    for one in parameters_of(name):
        names = one.opts if one.param_type_name == "option" else [one.metavar or one.name]
        for spelling in names:
            assert re.search(
                rf"`[^`]*(?<![\w-]){re.escape(spelling)}(?![\w-])[^`]*`\n:   \S", page
            ), spelling
        assert one.help.rstrip().endswith("."), one.name
    assert "```sh\npatchc " in page


def test_the_overview_has_every_command() -> None:
    assert re.findall(r"`patchc ([\w-]+)`\]", commands_page()) == command_names()


def test_an_option_is_shown_with_its_default() -> None:
    assert (
        "`--test-share <float>`\n:   Share of the requests that the test gets. *default: 0.5*"
        in (command_page("fix"))
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_api_pages_have_every_public_name_once(module: Any) -> None:
    found = re.findall(rf"^::: {module.__name__}\.(\w+)$", api_page(module.__name__), re.MULTILINE)
    assert sorted(found) == sorted(public_names(module.__name__))
    assert len(grouped(module)) > 1


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_public_name_says_what_it_is(module: Any, name: str) -> None:
    value = getattr(module, name)
    text = inspect.getdoc(value) or ""
    assert text, name
    assert not text.startswith(f"{name}("), "this is the text that dataclasses make"
    if dataclasses.is_dataclass(value):
        documented = set[str]().union(
            *(entries(inspect.getdoc(one) or "", "Attributes") for one in value.__mro__)
        )
        fields = {field.name for field in dataclasses.fields(value) if field.name[0] != "_"}
        assert fields <= documented | properties(value), fields - documented
    elif inspect.isfunction(value):
        parameters = set(inspect.signature(value).parameters)
        while not entries(text, "Args") and (other := _OF_ANOTHER.search(text)):
            text = inspect.getdoc(getattr(module, other[1])) or ""
        assert entries(text, "Args") >= parameters


def properties(value: Any) -> set[str]:
    return {name for name in dir(value) if isinstance(getattr(value, name, None), property)}


def entries(text: str, section: str) -> set[str]:
    """The names that a section of a docstring describes; one entry may have several."""
    found = re.search(rf"^{section}:\n((?:(?: .*)?\n)*)", f"{text}\n", re.MULTILINE)
    if not found:
        return set()
    indent = min(len(line) - len(line.lstrip()) for line in found[1].splitlines() if line.strip())
    return {
        name.strip()
        for entry in _ENTRY.finditer(found[1])
        if len(entry["indent"]) == indent
        for name in entry["names"].split(",")
    }
