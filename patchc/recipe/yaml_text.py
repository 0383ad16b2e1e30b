"""A YAML reader that refuses a key that is given twice."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would let the last of equal keys win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def load_yaml(text: str) -> Any:
    """Read the one document of a text; it has plain values only.

    Raises:
        yaml.YAMLError: it is malformed, asks for another kind of value, or gives a key twice.
    """
    return yaml.load(text, _Loader)
