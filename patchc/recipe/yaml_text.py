"""A YAML reader for plain values, written as most people read them.

Of YAML it leaves out what makes a small file large, or a value another than it seems: anchors and
aliases, merge keys, tags, several documents, and numbers such as ``1:30`` (90), ``017`` (15) and
``1_0`` (10), dates and binary data, which are texts here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_MOST_VALUES = 100_000
"""Texts, numbers, lists and tables of one file; each takes a kilobyte while it is read."""

_MOST_NESTED = 16
_MOST_DIGITS = 20
_KINDS = {
    "bool": (r"(?i:yes|no|true|false|on|off)\Z", "yYnNtTfFoO"),
    "null": (r"(?:~|(?i:null)|)\Z", ["~", "n", "N", ""]),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)\Z", "-+0123456789"),
    "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?\Z", "-+.0123456789"),
}
"""How texts without quotes look that are no texts, and how they begin."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader for plain values. Its last of equal keys would win; it is refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012, as the base class has them

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "an anchor or alias; write the value out where it is used"
        elif getattr(event, "tag", None):
            problem = "a tag; write the value without it"
        self._values += 1
        self._depth += 1
        if self._values > _MOST_VALUES:
            problem = f"more than {_MOST_VALUES:,} values; write TOML"
        if self._depth > _MOST_NESTED:
            problem = f"nested more than {_MOST_NESTED} deep"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                problem = "a merge key; write the values out" if key.value == "<<" else ""
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r:.80} is given twice"
                if problem:
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MOST_DIGITS + 1:
            problem = f"{node.value[:40]}… takes more than 64 bits"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return int(node.value)


for _kind, (_expression, _starts) in _KINDS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(_expression), list(_starts)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def load_yaml(text: str) -> Any:
    """Read the one document of a text; it has plain values only.

    Raises:
        ValueError: it is malformed, asks for another kind of value, or gives a key twice; says on
            one line what, and in which line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except (OverflowError, ValueError) as error:  # PyYAML takes any digits for a character
        raise ValueError("an escaped character that does not exist (\\U…)") from error
