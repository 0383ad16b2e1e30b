"""Stages whose results are kept: a stage runs again only when what goes into it has changed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STAMP = "stage.json"


class Stages:
    """The folder of an experiment, one subfolder a stage."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a stage, made by ``make`` unless it is there with the same inputs.

        A stage that is interrupted leaves nothing that looks finished: its stamp is written last.
        """
        folder = self._work / name
        wanted = json.loads(json.dumps(inputs))
        if self.stamp(name).get("inputs") == wanted:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"{name} …", flush=True)
        start = time.perf_counter()
        make(folder)
        seconds = time.perf_counter() - start
        (folder / STAMP).write_text(json.dumps({"inputs": wanted, "seconds": seconds}))
        print(f"{name}: {seconds:.0f} s", flush=True)
        return folder

    def stamp(self, name: str) -> dict[str, Any]:
        """The inputs and the seconds of a finished stage, or nothing."""
        path = self._work / name / STAMP
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found
