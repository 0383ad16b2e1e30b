"""The browser that opens report pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from devtools import Chromium


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Headless Chromium; CI fails without it, elsewhere its tests are skipped."""
    program = shutil.which("chromium")
    if program is None:
        missing = "chromium is not on the PATH: apt-get install chromium"
        if os.environ.get("PATCHC_NEEDS_CHROMIUM"):
            pytest.fail(missing)
        pytest.skip(missing)
    browser = Chromium(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
