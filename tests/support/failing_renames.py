"""Renames that fail, whichever system call they are made with."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def at_rename(patching: pytest.MonkeyPatch, number: int, happens: Callable[[], object]) -> None:
    """Let something happen at the ``number``-th rename, from 0; if it gives a code, it fails."""
    rename, load, numbers = os.rename, ctypes.CDLL, count()

    def code() -> int:
        failure = happens() if next(numbers) == number else 0
        return failure if isinstance(failure, int) else 0

    def plain(source: Path, target: Path) -> None:
        if failure := code():
            raise OSError(failure, os.strerror(failure), str(source), None, str(target))
        rename(source, target)

    def library(name: str | None, **options: Any) -> SimpleNamespace:
        call = load(name, **options).renameat2

        def without_replacing(*arguments: Any) -> int:
            if failure := code():
                ctypes.set_errno(failure)
                return -1
            return int(call(*arguments))

        return SimpleNamespace(renameat2=without_replacing)

    patching.setattr(os, "rename", plain)
    patching.setattr(ctypes, "CDLL", library)


def fail_rename(patching: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Let the ``number``-th rename fail, from 0."""
    at_rename(patching, number, lambda: code)


def hide_system_call(patching: pytest.MonkeyPatch, code: int | None) -> None:
    """Let the rename that replaces no file fail with a code, or for None, be missing."""

    def refused(*_: Any) -> int:
        ctypes.set_errno(code or 0)
        return -1

    library = SimpleNamespace(**{"renameat2": refused} if code else {})
    patching.setattr(ctypes, "CDLL", lambda *_, **__: library)
