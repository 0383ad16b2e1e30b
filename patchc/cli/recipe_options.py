"""Options made from the parameters of recipes, and the recipe that they choose.

Each parameter is stated once, in :mod:`patchc.recipe.safepatching` or
:mod:`patchc.recipe.task_merge`, with its default, its check and its help.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from patchc.cli.options import option, parse_number
from patchc.cli.output import warn
from patchc.errors import UsageError
from patchc.recipe import MergeRecipe, Recipe, find_recipe_and_keys
from patchc.recipe.parameters import Parameter, key, parameters

Command = TypeVar("Command", bound=Callable[..., None])

_OWN, _OF_MERGES = parameters(Recipe), parameters(MergeRecipe)

PARAMETERS: dict[str, Parameter] = _OWN | {n: p for n, p in _OF_MERGES.items() if n not in _OWN}
"""The parameters of all recipes; where two have one, the statement of SafePatching counts."""

_TYPES: dict[str, Any] = get_type_hints(MergeRecipe) | get_type_hints(Recipe)


def flag(name: str) -> str:
    """Return the option's name for a parameter."""
    return f"--{key(name).replace('_', '-')}"


def value_type(name: str) -> tuple[Any, bool]:
    """Return the type of one value of a parameter, and whether it can take several."""
    hint = _TYPES[name]
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple]
    return lists[0] if lists else next(kind for kind in kinds if kind is not NoneType), bool(lists)


def recipe_option(name: str) -> Any:
    """Make the annotated type of the option for a parameter."""
    stated = PARAMETERS[name]
    kind, several = value_type(name)
    names = f"{flag(name)}/--no-{flag(name)[2:]}" if kind is bool else flag(name)
    default = f"{stated.default:g}" if type(stated.default) in (int, float) else stated.default
    shown = stated.shown_default or (default if isinstance(default, str) else None)
    more = {"parser": parse_number, "metavar": "<float>"} if kind is float else {}
    text, choices = stated.help, get_args(kind)
    if choices:  # as a type, they would be folded inside a word
        text, more = (
            f"{text} One of {', '.join(choices[:-1])} or {choices[-1]}.",
            {"metavar": "NAME"},
        )
    info = option(text, names, panel=stated.panel, shown=shown, **more)
    return Annotated[list[kind] | None if several else kind | None, info]  # type: ignore[valid-type]


def takes(options: Mapping[str, Any]) -> Callable[[Command], Command]:
    """Give a command more options after ``recipe``; its ``**`` parameter gets them in order.

    Args:
        options: their annotated types, by name. None is the default of each.
    """
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=a)
        for name, a in options.items()
    ]

    def extend(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        *own, _ = signature.parameters.values()
        after = list(signature.parameters).index("recipe") + 1
        merged = signature.replace(parameters=[*own[:after], *added, *own[after:]])
        # Typer reads both.
        command.__signature__ = merged  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in merged.parameters.values()}
        return command

    return extend


def choose_recipe(
    name: str, options: Mapping[str, Any]
) -> tuple[Recipe | MergeRecipe, frozenset[str]]:
    """Take a method's defaults or a file's recipe, and change it by the options that are given.

    Returns:
        The recipe, and the keys that the file or the options give.

    Raises:
        UsageError: the recipe cannot be read, or an option is not one of its method's.
    """
    recipe, keys = find_recipe_and_keys(name)
    given = {name: value for name, value in options.items() if value not in (None, [])}
    for one in given:
        if not hasattr(recipe, one):
            raise UsageError(f"{flag(one)} is not an option of {recipe.method}; leave it out")
    return recipe.with_changes(**given), keys | given.keys()


def warn_of_unfitted(recipe: Recipe | MergeRecipe, given: Collection[str]) -> None:
    """Warn if a scale of SafePatching is a default, which suits few models."""
    unfitted = recipe.unfitted(given) if isinstance(recipe, Recipe) else ()
    if unfitted:
        scales = " and ".join(f"{PARAMETERS[n].symbol} {getattr(recipe, n):g}" for n in unfitted)
        kind = "are defaults" if len(unfitted) > 1 else "is a default"
        warn(f"{scales} {kind}, not fitted to these models; fit scales with `patchc fit`")
