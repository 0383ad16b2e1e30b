"""Rules ``OLD=NEW``: what a base calls OLD, the models that were tuned from it call NEW.

Frameworks wrap models, and save their tensors as ``module.…`` or ``_orig_mod.…``; releases move
layers below another module. OLD is a regular expression of RE2, so that no rule can run away.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchc.checkpoint import Checkpoint
from patchc.errors import MismatchError, UsageError
from patchc.formats.container.layout import MAX_NAME
from patchc.recipe.expressions import compile_expression

MOST_RULES = 64
MOST_LETTERS = 4096
"""Letters of OLD, and of NEW."""

MOST_SECONDS = 60.0
"""What rewriting the names of one model may take."""

_MOST_MEMORY = 1 << 20
_SHOWN = 80
_PARTS = re.compile(r"((?:[^\\=]|\\.)+)=(.*)", re.DOTALL)
_GROUPS = re.compile(r"\\(.?)", re.DOTALL)


class Renames:
    """Rules that rewrite the names of a base's tensors to those of tuned models.

    Each rule in turn rewrites the first place of a name that it matches; a name is rewritten by
    every rule that matches. In NEW, ``\\1`` to ``\\9`` are groups of OLD. The first ``=`` without a
    backslash before it parts OLD from NEW.

    Args:
        rules: ``OLD=NEW``, one or several.

    Attributes:
        rules: as given.

    Raises:
        UsageError: a rule is malformed or too large, or there are too many.
    """

    def __init__(self, rules: str | Iterable[str] = ()) -> None:
        if not isinstance(rules, Iterable):
            raise UsageError(f"rename is {rules!r:.80}; give texts, OLD=NEW")
        self.rules = (rules,) if isinstance(rules, str | bytes) else tuple(rules)
        if len(self.rules) > MOST_RULES:
            raise UsageError(f"there are more than {MOST_RULES} rename rules; join some of them")
        self._rules = [_parse(rule) for rule in self.rules]

    def to_json(self) -> dict[str, list[str]]:
        """What a patch's metadata says of them; nothing where there are none."""
        return {"rename": [*self.rules]} if self.rules else {}

    def of(self, base: Checkpoint) -> NewNames:
        """Rewrite the names of a base's tensors.

        Raises:
            UsageError: a rule matches no tensor, two tensors get one name, a name becomes too long,
                or the rules take too long.
        """
        names = {name: name for name in base.tensors}
        ends = time.monotonic() + MOST_SECONDS
        rewritten = []
        for rule in self._rules:
            matched = []
            for name, now in names.items():
                if (new := rule.rewrite(now)) is not None:
                    names[name] = new
                    matched.append(name)
                if time.monotonic() > ends:
                    raise UsageError(
                        f"{rule.called}: the rules take more than {MOST_SECONDS:g} s for the names "
                        f"of {base.path}; write simpler ones"
                    )
            if not matched:
                raise UsageError(
                    f"{rule.called} matches no tensor of {base.path}; `patchc inspect` of a patch "
                    "lists names, and OLD is what the base calls them"
                )
            rewritten.append((rule.called, matched))
        _check_apart(names)
        return NewNames(names, rewritten)


@dataclass(frozen=True)
class NewNames:
    """What tuned models call the tensors of a base, by rules.

    Attributes:
        by_base: for every tensor of the base, its name there.
        rewritten: for each rule, how messages call it, and the names that it has rewritten.
    """

    by_base: Mapping[str, str]
    rewritten: Sequence[tuple[str, Collection[str]]]

    def counterparts(self, tuned: Container[str]) -> dict[str, str]:
        """The names, in a model with these tensors, of the base's tensors that it has.

        A tensor that is not there under its new name is looked for under its own: a model that
        keeps the base's names needs no rule.
        """
        found = {name: new for name, new in self.by_base.items() if new in tuned}
        taken = set(found.values())
        for name in self.by_base:
            if name not in found and name in tuned and name not in taken:
                found[name] = name
        return found

    def view(self, tuned: Checkpoint) -> Checkpoint:
        """A tuned model whose tensors are looked up under the base's names.

        It shares the open files of ``tuned``. :attr:`TensorInfo.name` stays that of the file.

        Raises:
            MismatchError: a tensor has the name of one that is looked up elsewhere.
        """
        found = self.counterparts(tuned.tensors)
        names = {new: name for name, new in found.items()}
        view = copy.copy(tuned)
        view.tensors = {}
        for name, tensor in tuned.tensors.items():
            if name not in names and name in found:
                raise MismatchError(
                    f"{tuned.path}: tensor {name!r} is left over, since --rename takes "
                    f"{found[name]!r} for the base's {name!r}; correct the rules"
                )
            view.tensors[names.get(name, name)] = tensor
        return view

    def check_found(self, models: Iterable[Checkpoint]) -> None:
        """Check that each rule leads to a tensor of one of the tuned models, or of their views.

        Raises:
            UsageError: naming the rule, and a name that it gave.
        """
        models = [*models]
        there = {tensor.name for model in models for tensor in model.tensors.values()}
        for called, names in self.rewritten:
            if not any(self.by_base[name] in there for name in names):
                name = next(iter(names))
                raise UsageError(
                    f"{called} makes {self.by_base[name]!r:.200} of {name!r:.200}, and like all "
                    f"names that it makes, {' and '.join(str(m.path) for m in models)} does not "
                    "have it; correct NEW"
                )


@dataclass(frozen=True)
class _Rule:
    called: str
    old: Any
    new: tuple[str | int, ...]

    def rewrite(self, name: str) -> str | None:
        """The new name; None where the rule does not match."""
        if len(name) > MAX_NAME or (match := self.old.search(name)) is None:
            return None  # no patch has a name of that length
        parts = (part if isinstance(part, str) else match[part] or "" for part in self.new)
        new: str = name[: match.start()] + "".join(parts) + name[match.end() :]
        if len(new) > MAX_NAME:
            raise UsageError(
                f"{self.called} makes a name of {len(new):,} letters of {name[:_SHOWN]!r}…; "
                f"{MAX_NAME:,} are the most"
            )
        return new


def _parse(rule: str) -> _Rule:
    if not isinstance(rule, str):
        raise UsageError(f"rename is {rule!r:.80}; give texts, OLD=NEW")
    called = f"rename {rule[:_SHOWN]!r}{'…' if len(rule) > _SHOWN else ''}"
    parts = _PARTS.fullmatch(rule)
    if parts is None:
        raise UsageError(
            f"{called}: not of the form OLD=NEW; write ^ for the start of a name, as in "
            r"'^=module.', and \= for an equals sign in OLD"
        )
    old, new = parts.groups()
    try:
        compiled = compile_expression(old, MOST_LETTERS, max_mem=_MOST_MEMORY)
    except UsageError as error:
        raise UsageError(f"{called}: {error}") from error
    if len(new) > MOST_LETTERS:
        raise UsageError(f"{called}: NEW has more than {MOST_LETTERS:,} letters; write less")
    return _Rule(called, compiled, tuple(_template(called, new, compiled.groups)))


def _template(called: str, new: str, groups: int) -> Iterable[str | int]:
    """Texts and numbers of groups, one after another."""
    end = 0
    for found in _GROUPS.finditer(new):
        yield new[end : found.start()]
        end, sign = found.end(), found[1]
        if sign == "\\":
            yield sign
        elif sign in "123456789" and sign:
            if int(sign) > groups:
                raise UsageError(
                    f"{called}: NEW refers to group {sign}, and OLD has {groups}; groups stand in "
                    "( )"
                )
            yield int(sign)
        else:
            raise UsageError(
                rf"{called}: NEW holds {found[0]!r}; write \1 to \9 for groups of OLD, and \\ for "
                "a backslash"
            )
    yield new[end:]


def _check_apart(names: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, new in names.items():
        owner = owners.setdefault(new, name)
        if owner != name:
            raise UsageError(
                f"rename: {owner!r:.200} and {name!r:.200} both become {new!r:.200}; narrow the "
                "rules, with ^ for the start of a name"
            )


NO_RENAMES = Renames()
