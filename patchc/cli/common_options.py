"""Options that every command has, and the manner that they choose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from patchc.cli.config_file import read_options
from patchc.cli.options import model, named_path, option
from patchc.cli.voice import Voice
from patchc.errors import UsageError


def _from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Take a file's options as defaults: it is read before all other options."""
    if path is not None:
        names = context.parent.command.list_commands(context)  # type: ignore[union-attr]
        command = context.command
        context.default_map = read_options(path, command.name or "", names, command.params)
    return path


_MANNERS = ("verbose", "quiet")
_COMMON: dict[str, tuple[Any, object]] = {
    "config": (
        Annotated[
            Path | None,
            option(
                "TOML file of options: a table for each command, such as \\[build], and keys such "
                "as max_memory. The command line wins. Paths are taken from the working folder.",
                metavar="FILE",
                is_eager=True,
                callback=_from_file,
            ),
        ],
        None,
    ),
    "verbose": (
        Annotated[bool, option("Tell where each stage begins and ends.", "-v", "--verbose")],
        False,
    ),
    "quiet": (
        Annotated[
            bool, option("Print only errors, warnings and what --json prints.", "-q", "--quiet")
        ],
        False,
    ),
}


DOWNLOAD = "download"
_OF_MODELS: dict[str, tuple[Any, object]] = {
    DOWNLOAD: (
        Annotated[
            bool,
            option(
                "Fetch models that are named by hub ids and are not in the hub's cache (needs the "
                "hub extra). Nothing is downloaded otherwise.",
                "--download",
            ),
        ],
        False,
    ),
}


def with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have, and those that all have that take models.

    :func:`manner` takes what they say, and :class:`~patchc.cli.command.Command` the latter. A path
    without a parser of its own gets the one that refuses an empty text.
    """
    signature = inspect.signature(function, eval_str=True)
    common = {**(_OF_MODELS if _takes_models(signature) else {}), **_COMMON}
    added = [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
        )
        for name, (annotation, default) in common.items()
    ]

    @wraps(function)
    def command(**given: Any) -> None:
        function(**{name: value for name, value in given.items() if name not in common})

    merged = signature.replace(parameters=[*signature.parameters.values(), *added])
    _refuse_empty_paths(merged)
    # Typer reads both.
    command.__doc__ = _paragraphs(function.__doc__ or "")
    command.__signature__ = merged  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in merged.parameters.values()}
    return command


def _refuse_empty_paths(signature: inspect.Signature) -> None:
    for parameter in signature.parameters.values():
        kind, *described = get_args(parameter.annotation)
        for one in described:
            if _is_path(kind) and one.parser is None:
                one.parser = named_path


def _is_path(kind: Any) -> bool:
    return kind is Path or any(map(_is_path, get_args(kind)))


def _takes_models(signature: inspect.Signature) -> bool:
    described = (
        one
        for parameter in signature.parameters.values()
        for one in getattr(parameter.annotation, "__metadata__", ())
    )
    return any(getattr(one, "parser", None) is model for one in described)


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph, for a screen of any width."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def manner(context: Any, arguments: tuple[str, ...]) -> Voice:
    """Return how a command speaks; the command line wins over a file.

    Raises:
        UsageError: it shall be both verbose and quiet.
    """
    chosen = [name for name in _MANNERS if context.params.get(name)]
    if len(chosen) > 1:
        chosen = [n for n in chosen if context.get_parameter_source(n).name == "COMMANDLINE"]
        if len(chosen) != 1:
            raise UsageError("--verbose and --quiet exclude each other; give one of them")
    return Voice(
        context.info_name,
        arguments,
        "verbose" in chosen,
        "quiet" in chosen,
        context.params.get("config"),
    )
