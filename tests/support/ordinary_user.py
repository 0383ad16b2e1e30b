"""Permissions as an ordinary user meets them, for tests that may run as root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

_NOBODY = 65534


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's rights and root's home. What the block imports has to be loaded before."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        with mock.patch.dict(os.environ, HOME="/nonexistent"):
            yield
    finally:
        os.seteuid(0)
