"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from fit_inputs import write_models, write_requests
from fit_runs import run

from patchc.verbs.fit import FitReport


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_requests(tmp_path_factory.mktemp("requests"))


@pytest.fixture(scope="session")
def fitted(
    models: Path, requests: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FitReport, Path]:
    out = tmp_path_factory.mktemp("fitted") / "fix.patchc"
    return run(models, requests, out), out
