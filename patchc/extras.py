"""The command that installs an extra of patchc, from where this patchc came (PEP 610)."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def install_command(extra: str) -> str:
    """The shell command that adds an extra to the environment that this process runs in."""
    try:
        requirement = _requirement(extra, _origin())
    except (LookupError, TypeError, AttributeError, ValueError):  # not as PEP 610 has it
        requirement = _requirement(extra, {})
    return f"{_installer()} {requirement}"


def _installer() -> str:
    python = shlex.quote(sys.executable)
    if find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {python}"
    found = shutil.which("pip")
    beside = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip install" if beside else f"{python} -m pip install"


def _origin() -> dict[str, Any]:
    """What the installer noted of the place that patchc came from; empty for an index."""
    try:
        found = json.loads(distribution("patchc").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError, OSError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("url"), str) else {}


def _requirement(extra: str, origin: dict[str, Any]) -> str:
    if not origin:
        return shlex.quote(f"patchc[{extra}]")
    url = urlsplit(origin["url"])
    if url.scheme == "file" and "vcs_info" not in origin:
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return editable + shlex.quote(f"{unquote(url.path)}[{extra}]")
    address = origin["url"]
    if versions := origin.get("vcs_info"):
        address = f"{versions['vcs']}+{address}@{versions['commit_id']}"
    if below := origin.get("subdirectory"):
        address = f"{address}#subdirectory={below}"
    return shlex.quote(f"patchc[{extra}] @ {address}")
