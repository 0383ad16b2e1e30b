"""From a page to HTML: templates that escape all they are given, and a page that can do nothing.

The page has no script, no link and no address. Its policy forbids everything but its own style,
which it names by digest, so that a mistake in escaping would still load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from patchc.escaping import cut, shown, visible
from patchc.report_page.blocks import Page
from patchc.version import __version__

_TEMPLATES = ("page.html", "blocks.html")
_STYLE = "style.css"
_MOST_TEXT = 2000
"""Characters of a text that are shown."""
_MOST_LINES = 4000
"""Characters of a text of several lines that are shown."""


def render(page: Page) -> str:
    """Return the page as HTML; the same page gives the same text."""
    style = _read(_STYLE)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    text = template.render(page=page, style=Markup(style), style_digest=digest, version=__version__)
    return text + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader({name: _read(name) for name in _TEMPLATES}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["several_lines"] = several_lines
    return environment


def _visible(value: object) -> object:
    """Write out what is hidden in a text, and cut it; on its way into the page, all text is."""
    if isinstance(value, Markup | _Lines):
        return value
    return shown(value, _MOST_TEXT) if isinstance(value, str) else value


class _Lines(str):
    """A text that is visible but for its line ends."""


def several_lines(text: str) -> str:
    """Write out what is hidden in a text of several lines, and cut it."""
    lines = cut(text, _MOST_LINES).replace("\r\n", "\n").split("\n")
    return _Lines("\n".join(map(visible, lines)))


@cache
def _read(name: str) -> str:
    return (files("patchc.report_page") / "templates" / name).read_text(encoding="utf-8")
