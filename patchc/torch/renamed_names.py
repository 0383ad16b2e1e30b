"""Takes names back through the renamings of a vLLM ``WeightsMapper``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def names_before(mapper: Any, name: str) -> Iterator[str]:
    """The names that the mapper makes ``name`` of, in the order of its rules; itself if none.

    They may be several, because vLLM reads a model's older layouts too; the first rule is for the
    layout that is written today.
    """
    rename = mapper.get_rename_mapper() if hasattr(mapper, "get_rename_mapper") else mapper
    found = False
    for one in _candidates(rename, name):
        if rename.apply_list([one]) == [name]:
            found = True
            yield one
    if not found:
        yield name


def _candidates(mapper: Any, name: str) -> Iterator[str]:
    """Names that rules may have made ``name`` of: suffixes, then prefixes, then parts."""
    for by_suffix in _undone(_rules(mapper, "suffix"), name, _old_suffix):
        for by_prefix in _undone(_rules(mapper, "prefix"), by_suffix, _old_prefix):
            yield from _parts_undone([*_rules(mapper, "substr").items()], by_prefix)


def _rules(mapper: Any, kind: str) -> Mapping[str, str]:
    rules = getattr(mapper, f"orig_to_new_{kind}", None) or {}
    return {old: new for old, new in rules.items() if new is not None}


def _undone(
    rules: Mapping[str, str], name: str, undo: Callable[[str, str, str], str | None]
) -> Iterator[str]:
    """A name with a rule undone, for each that can be, and as it is."""
    for old, new in rules.items():
        before = undo(name, old, new)
        if before is not None:
            yield before
    yield name


def _old_suffix(name: str, old: str, new: str) -> str | None:
    return name.removesuffix(new) + old if new and name.endswith(new) else None


def _old_prefix(name: str, old: str, new: str) -> str | None:
    return old + name.removeprefix(new) if name.startswith(new) else None


def _parts_undone(rules: Sequence[tuple[str, str]], name: str) -> Iterator[str]:
    """A name with as many rules undone as can be, the last first, then with fewer."""
    if not rules:
        yield name
        return
    *earlier, (old, new) = rules
    if new and new in name:
        yield from _parts_undone(earlier, name.replace(new, old, 1))
    yield from _parts_undone(earlier, name)
