"""The command that installs a missing extra: it fits the place that patchc came from."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import patchc.extras
from patchc.errors import MissingExtraError, import_errors
from patchc.extras import install_command


class Distribution:
    """What an installer noted."""

    def __init__(self, note: str | None) -> None:
        self._note = note

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._note


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pip on the path is the one of this environment."""
    monkeypatch.setattr(shutil, "which", lambda _: str(Path(sys.executable).with_name("pip")))


def came(monkeypatch: pytest.MonkeyPatch, note: dict[str, Any] | str | None) -> None:
    text = json.dumps(note) if isinstance(note, dict) else note
    monkeypatch.setattr(patchc.extras, "distribution", lambda _: Distribution(text))


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (None, ["patchc[derive]"]),
        ("no JSON", ["patchc[derive]"]),
        ("[]", ["patchc[derive]"]),
        (
            {"url": "file:///home/a%20b/patchc", "dir_info": {"editable": True}},
            ["-e", "/home/a b/patchc[derive]"],
        ),
        ({"url": "file:///src/patchc", "dir_info": {}}, ["/src/patchc[derive]"]),
        (
            {"url": "file:///tmp/patchc-1-py3-none-any.whl", "archive_info": {"hash": "x"}},
            ["/tmp/patchc-1-py3-none-any.whl[derive]"],
        ),
        (
            {"url": "https://host.example/patchc-1.tar.gz", "archive_info": {}},
            ["patchc[derive] @ https://host.example/patchc-1.tar.gz"],
        ),
        (
            {
                "url": "https://host.example/patchc.git",
                "vcs_info": {"vcs": "git", "commit_id": "c0ffee", "requested_revision": "main"},
                "subdirectory": "python",
            },
            ["patchc[derive] @ git+https://host.example/patchc.git@c0ffee#subdirectory=python"],
        ),
        (
            {"url": "file:///src/patchc", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            ["patchc[derive] @ git+file:///src/patchc@c0ffee"],
        ),
    ],
)
@pytest.mark.usefixtures("pip")
def test_the_place_that_patchc_came_from(
    monkeypatch: pytest.MonkeyPatch, note: dict[str, Any] | str | None, words: list[str]
) -> None:
    came(monkeypatch, note)
    assert shlex.split(install_command("derive")) == ["pip", "install", *words]


@pytest.mark.usefixtures("pip")
def test_a_patchc_that_was_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(patchc.extras, "distribution", missing)
    assert install_command("gpu") == "pip install 'patchc[gpu]'"


def test_the_environment_that_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    came(monkeypatch, None)
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    for found in ("/usr/bin/pip", None):
        monkeypatch.setattr(shutil, "which", lambda _, found=found: found)
        assert shlex.split(install_command("derive"))[:4] == [
            "/my env/bin/python", "-m", "pip", "install"
        ]  # fmt: skip


def test_an_environment_of_uv_has_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    came(monkeypatch, None)
    monkeypatch.setattr(patchc.extras, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    words = shlex.split(install_command("derive"))
    assert words == ["uv", "pip", "install", "--python", sys.executable, "patchc[derive]"]


@pytest.mark.usefixtures("pip")
def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    came(monkeypatch, {"url": "file:///src/patchc", "dir_info": {}})
    with (
        pytest.raises(MissingExtraError, match=r"`pip install '/src/patchc\[plot\]'`"),
        import_errors("a figure", "plot"),
    ):
        import a_package_that_nobody_has  # noqa: F401
