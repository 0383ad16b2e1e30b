"""What MkDocs calls: it adds the generated pages and those that lie outside ``docs``."""

from __future__ import annotations

import re
from typing import Any

from api_pages import api_page, public_names
from command_pages import command_names, command_page, commands_page
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from repository_links import ELSEWHERE, REPOSITORY, in_site

_MODULES = {"reference/api.md": "patchc", "reference/api-torch.md": "patchc.torch"}
_COMMANDS = "reference/commands"
_LOADED_FROM_ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?https?:[^>]*>"
)
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):<code>~?([\w.]+)</code>")
_SOURCES = {there: source for source, there in ELSEWHERE.items() if source != "README.md"}


def on_config(config: Any) -> Any:
    """Name the commands' pages in the navigation."""
    pages = [f"{_COMMANDS}/index.md", *(f"{_COMMANDS}/{name}.md" for name in command_names())]
    _fill(config.nav, _COMMANDS, pages)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no files below ``docs``."""
    generated = {f"{_COMMANDS}/index.md": commands_page()}
    generated |= {f"{_COMMANDS}/{name}.md": command_page(name) for name in command_names()}
    generated |= {page: api_page(module) for page, module in _MODULES.items()}
    for page, content in generated.items():
        files.append(File.generated(config, page, content=content))
    for page, source in _SOURCES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_more: Any) -> str:
    """Turn links between files of the repository into links of the site."""
    place = page.file.src_uri
    return in_site(markdown, _SOURCES.get(place, f"docs/{place}"), place)


def on_page_content(html: str, page: Any, **_more: Any) -> str:
    """Turn the references of docstrings into links, where they name something public."""
    module = _MODULES.get(page.file.src_uri)
    if module is None:
        return html

    def link(found: re.Match[str]) -> str:
        name = found[1].removeprefix(f"{module}.")
        shown = f"<code>{name}</code>"
        return f'<a href="#{module}.{name}">{shown}</a>' if name in public_names(module) else shown

    return _ROLE.sub(link, html)


def on_post_page(output: str, page: Any, **_more: Any) -> str:
    """Refuse a page that would load something from another host."""
    if found := _LOADED_FROM_ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


def _fill(entries: list[Any], name: str, pages: list[str]) -> None:
    """Replace a name in the navigation by pages."""
    for entry in entries:
        if isinstance(entry, dict):
            for title, inside in entry.items():
                if inside == name:
                    entry[title] = pages
                elif isinstance(inside, list):
                    _fill(inside, name, pages)
