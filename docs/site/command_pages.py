"""Pages of the command line, written from the commands themselves."""

from __future__ import annotations

import re
from typing import Any

import typer

from patchc.cli.main import app

_EXAMPLE = "Example: "
_FACT = re.compile(r"  \[((?:required|default: )?.*)\]$")
_GENERAL = "Options"


def command_names() -> list[str]:
    """All commands, in the order of ``patchc --help``."""
    program = _program()
    return list(program.list_commands(_context(program, "patchc")))


def parameters_of(name: str) -> list[Any]:
    """The arguments and options of a command that its help shows."""
    command = _program().get_command(None, name)
    shown = command.get_params(_context(command, name))
    return [one for one in shown if not getattr(one, "hidden", False)]


def command_page(name: str) -> str:
    """The page of a command: what it does, examples, arguments and options with their defaults."""
    command = _program().get_command(None, name)
    context = _context(command, name)
    paragraphs = [one.strip() for one in (command.help or "").split("\n\n")]
    text = [_plain(one) for one in paragraphs if not one.startswith(_EXAMPLE)]
    examples = [one.removeprefix(_EXAMPLE) for one in paragraphs if one.startswith(_EXAMPLE)]
    parts = [f"# patchc {name}", *text]
    if examples:
        parts.append("```sh\n" + "\n".join(examples) + "\n```")
    for title, members in _panels(name).items():
        parts += [f"## {title}", *(_entry(one, context) for one in members)]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """The overview: each command with its first sentence."""
    rows = []
    for name in command_names():
        help_text = " ".join(
            (_program().get_command(None, name).help or "").split("\n\n")[0].split()
        )
        rows.append(f"| [`patchc {name}`]({name}.md) | {_plain(help_text)} |")
    head = (
        "# Commands\n\nWritten from the commands themselves; `patchc COMMAND --help` says the same."
    )
    return "\n".join([head, "", "| command | what it does |", "|---|---|", *rows]) + "\n"


def _panels(name: str) -> dict[str, list[Any]]:
    """Arguments, then options by the headings of the help."""
    found: dict[str, list[Any]] = {"Arguments": [], _GENERAL: []}
    for one in parameters_of(name):
        is_option = one.param_type_name == "option"
        panel = (getattr(one, "rich_help_panel", None) or _GENERAL) if is_option else "Arguments"
        found.setdefault(panel, []).append(one)
    return {title: members for title, members in found.items() if members}


def _entry(parameter: Any, context: Any) -> str:
    names, text = parameter.get_help_record(context)
    facts = ""
    if found := _FACT.search(text):
        text = text[: found.start()]
        facts = " *" + found[1].replace("; ", ", ") + "*"
    return f"`{names}`\n:   {_plain(text)}{facts}"


def _plain(text: str) -> str:
    """A help text as Markdown: Rich's escape is none here, and stars and tags are themselves."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("\\[", "["))
    plain = [part if part.startswith("`") else re.sub(r"([*<|_])", r"\\\1", part) for part in parts]
    return "".join(plain)


def _program() -> Any:
    return typer.main.get_command(app)


def _context(command: Any, name: str) -> Any:
    return command.make_context(name, [], resilient_parsing=True)
