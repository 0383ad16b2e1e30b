"""Finds, from names, dtypes and shapes alone, the rules that would explain a renamed model.

A tensor votes for the change of prefix that gives it a counterpart of the longest common suffix.
Numbers within prefixes count as any number. A sample of the tensors votes, so that memory stays
small, and all of them are counted under the rules that win.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import re2

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.dtypes import MERGEABLE
from patchc.errors import UsageError
from patchc.recipe.renames import Renames

_MOST_VOTERS = 4096
_MOST_PREFIXES = 8
"""Prefixes of one suffix that get a vote."""

_MOST_PARTS = 6
"""Parts of a name that a prefix may have."""

_MOST_TRIED = 6
_FEWEST = 2
"""Tensors that a rule has to explain."""

_NUMBER = re.compile(r"(?<![^.])\d+(?=\.)")
_ESCAPED_NUMBER = re.compile(r"(?<![^.])\d+(?=\\\.)")

_Kind: TypeAlias = tuple[str, tuple[int, ...]]


def suggest_renames(
    missing: Sequence[TensorInfo], base: Checkpoint, tuned: Checkpoint
) -> tuple[str, ...]:
    """Suggest the rules under which most of a base has counterparts in a tuned model.

    Args:
        missing: the base's tensors without a counterpart.
        base: the base.
        tuned: where a counterpart has a name that the base does not have, the same shape, and the
            same dtype or another one of those that merge.

    Returns:
        Rules ``OLD=NEW`` in their order. None if less than half of the base is missing, or would
        be found, by bytes and by number; or if a rule would be for a single tensor.
    """
    if not _is_most(missing, base):
        return ()
    rules: tuple[str, ...] = ()
    found: Sequence[TensorInfo] = ()
    for rule in _voted(missing, base, tuned):
        for tried in ((*rules, rule), (rule, *rules)):
            now = _explained(tried, missing, base, tuned)
            if len(now) >= len(found) + _FEWEST:
                rules, found = tried, now
                break
        if len(found) == len(missing):
            break
    return rules if _is_most(found, base) else ()


def as_options(rules: Sequence[str]) -> str:
    """Rules as a shell takes them."""
    return " ".join(f"--rename {shlex.quote(rule)}" for rule in rules)


def rename_advice(base: Checkpoint, tuned: Checkpoint) -> str:
    """The end of a message about a tensor that a tuned model lacks: rules, where they may help.

    Empty where the tuned model is read by rules already.
    """
    if any(name != tensor.name for name, tensor in tuned.tensors.items()):
        return ""
    missing = [tensor for name, tensor in base.tensors.items() if name not in tuned.tensors]
    rules = suggest_renames(missing, base, tuned)
    if not rules:
        return ""
    return f". Most of its tensors seem renamed; build and diff take them with {as_options(rules)}"


def _is_most(tensors: Sequence[TensorInfo], base: Checkpoint) -> bool:
    """Whether tensors are more than half of a base, by bytes or by number."""
    every = base.tensors.values()
    nbytes = sum(tensor.nbytes for tensor in tensors)
    return 2 * len(tensors) > len(every) or 2 * nbytes > sum(t.nbytes for t in every)


def _voted(missing: Sequence[TensorInfo], base: Checkpoint, tuned: Checkpoint) -> list[str]:
    """The rules with the most votes; each tensor has its bytes, and one."""
    voters = missing[:: -(-len(missing) // _MOST_VOTERS)]
    prefixes: dict[tuple[_Kind, str], list[str]] = {
        (_kind(tensor), suffix): [] for tensor in voters for _, suffix in _cuts(tensor.name)
    }
    for tensor in tuned.tensors.values():
        if tensor.name not in base.tensors:
            for prefix, suffix in _cuts(tensor.name):
                held = prefixes.get((_kind(tensor), suffix))
                if held is not None and len(held) < _MOST_PREFIXES:
                    held.append(prefix)
    votes: Counter[str] = Counter()
    for tensor in voters:
        for prefix, suffix in _cuts(tensor.name):
            held = prefixes[_kind(tensor), suffix]
            for rule in {_rule(prefix, new) for new in held}:
                votes[rule] += tensor.nbytes + 1
            if held and prefix:
                break  # where the whole name stands behind a new prefix, its first part votes too
    ranked = sorted(votes, key=lambda rule: (-votes[rule], len(rule), rule))
    return ranked[:_MOST_TRIED]


def _explained(
    rules: Sequence[str], missing: Sequence[TensorInfo], base: Checkpoint, tuned: Checkpoint
) -> Sequence[TensorInfo]:
    """The missing tensors that have a counterpart of their kind by rules."""
    try:
        names = Renames(rules).of(base).counterparts(tuned.tensors)
    except UsageError:
        return ()
    return [
        tensor
        for tensor in missing
        if tensor.name in names and _kind(tuned.tensors[names[tensor.name]]) == _kind(tensor)
    ]


def _kind(tensor: TensorInfo) -> _Kind:
    return "" if tensor.dtype.name in MERGEABLE else tensor.dtype.name, tensor.shape


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Prefixes of whole parts, the shortest first, each with the rest of the name."""
    end = 0
    for _ in range(_MOST_PARTS + 1):
        yield name[:end], name[end:]
        end = name.find(".", end) + 1
        if not end:
            return


def _rule(old: str, new: str) -> str:
    numbers = _NUMBER.findall(old)
    expression, text = re2.escape(old), new.replace("\\", "\\\\")
    if numbers and numbers == _NUMBER.findall(new):
        groups = iter(range(1, len(numbers) + 1))
        expression = _ESCAPED_NUMBER.sub(r"(\\d+)", expression)
        text = _NUMBER.sub(lambda _: f"\\{next(groups)}", text)
    return f"^{expression}={text}"
