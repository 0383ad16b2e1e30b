"""The run of ``make gpu`` ends in time, whatever its parts do, and keeps what they found."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu.__main__ as script
import pytest
from gpu.timed_parts import Deadline, Part, run_part

BENCHMARKS = Path(script.__file__).parents[1]
QUICK = """
import sys
from figures import Figures
print("said before")
Figures(__import__("pathlib").Path(sys.argv[1]), "cpu").add("speed", "first", seconds=1.5)
"""
HANGS = (
    QUICK
    + """
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(str(child.pid))
time.sleep(600)
"""
)
FAILS = QUICK + "raise SystemExit('what went wrong')\n"
PLAIN_PROBE = {"torch": "", "device": "", "device_memory": 0}


def part(folder: Path, name: str, code: str, **fields: Any) -> Part:
    path = folder / f"{name}.py"
    path.write_text(code)
    figures = folder / f"{name}.json"
    return Part(
        **{
            "name": name,
            "command": (sys.executable, str(path), str(figures), str(folder / "child")),
            "script": path,
            "limit": 60,
            "least": 0,
            "figures": figures,
            "scratch": folder / f"{name}-scratch",
            "environment": {"PYTHONPATH": str(BENCHMARKS)},
        }
        | fields
    )


def has_ended(process: int) -> bool:
    """Whether a process is gone, or dead and only not collected yet."""
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_ended(process: int) -> None:
    """A killed process goes in a moment; it would stay for ten minutes."""
    for _ in range(600):
        if has_ended(process):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {process} still runs")


def test_a_part_that_hangs_is_killed_with_its_children_and_keeps_its_figures(
    tmp_path: Path,
) -> None:
    hanging = part(tmp_path, "hanging", HANGS, limit=6)
    outcome = run_part(hanging, Deadline(600), frozenset())
    assert (outcome.state, outcome.reason) == ("killed", "ran over its limit of 6 s")
    assert outcome.tables == {"speed": [{"name": "first", "seconds": 1.5}]}
    assert outcome.tail == "said before\n"
    assert not hanging.scratch.exists()
    wait_until_ended(int((tmp_path / "child").read_text()))


def test_what_is_left_of_the_whole_run_limits_a_part(tmp_path: Path) -> None:
    outcome = run_part(part(tmp_path, "hanging", HANGS), Deadline(2), frozenset())
    assert outcome.state == "killed"
    assert outcome.reason.startswith("ran over its limit of")


def test_a_part_that_fails_says_how(tmp_path: Path) -> None:
    outcome = run_part(part(tmp_path, "failing", FAILS), Deadline(600), frozenset())
    assert (outcome.state, outcome.reason) == ("failed", "exit code 1")
    assert outcome.tail.endswith("what went wrong\n")
    assert outcome.tables["speed"][0]["seconds"] == 1.5


@pytest.mark.parametrize(
    ("fields", "left", "reason"),
    [
        ({"least": 30}, 20, "20 s left, needs 30"),
        ({"needs": ("numpy", "no-such", "nor-this")}, 600, "needs no-such, nor-this"),
        ({"script": Path("/nowhere/later.py")}, 600, "later.py does not exist"),
    ],
)
def test_a_part_that_cannot_run_is_not_begun(
    tmp_path: Path, fields: dict[str, Any], left: float, reason: str
) -> None:
    quick = part(tmp_path, "quick", QUICK, **fields)
    outcome = run_part(quick, Deadline(left), frozenset({"no-such", "nor-this"}))
    assert (outcome.state, outcome.reason) == ("not run", reason)
    assert not quick.figures.exists()


def test_later_parts_run_and_the_results_are_whole_after_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    seen = "import json, sys; json.load(open(sys.argv[1]))\n"
    looks = ("-c", seen, str(out / "results.json"))
    parts = [
        part(tmp_path, "hanging", HANGS, limit=6),
        part(tmp_path, "missing", QUICK, needs=("no-such",)),
        part(tmp_path, "quick", QUICK),
        part(tmp_path, "looking", QUICK, command=(sys.executable, *looks)),
    ]

    class FixedPlan:
        def __init__(self, *_: object) -> None:
            self.parts = lambda: parts

    monkeypatch.setattr(script, "Plan", FixedPlan)
    monkeypatch.setattr(script, "probe", lambda: dict(PLAIN_PROBE))
    monkeypatch.setattr(script, "prepare", lambda *_: ([], frozenset({"no-such"}), ["A note."]))
    options = argparse.Namespace(minutes=9, wheels=None, out=out, parts=None, rehearse=False)
    work = tmp_path / "work"
    work.mkdir()
    assert script.run(options, work) == 1
    results = json.loads((out / "results.json").read_text())
    assert [(one["name"], one["state"]) for one in results["parts"]] == [
        ("hanging", "killed"),
        ("missing", "not run"),
        ("quick", "done"),
        ("looking", "done"),
    ]
    assert results["parts"][0]["tables"] == results["parts"][2]["tables"] != {}
    printed = capsys.readouterr().out
    assert (out / "results.md").read_text() in printed
    assert "A note." in printed


def test_a_run_that_is_stopped_ends_its_part_and_keeps_the_results(tmp_path: Path) -> None:
    starts = f"""
import sys
sys.path[:0] = [{str(BENCHMARKS)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
import gpu.__main__ as script
from test_gpu_parts import HANGS, PLAIN_PROBE, QUICK, part
folder = Path({str(tmp_path)!r})
parts = [part(folder, "quick", QUICK), part(folder, "hanging", HANGS)]
script.Plan = lambda *_: type("Fixed", (), {{"parts": lambda self: parts}})()
script.probe = lambda: dict(PLAIN_PROBE)
sys.argv = ["gpu", "--out", str(folder / "out")]
sys.exit(script.main())
"""
    process = subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.DEVNULL)
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    wait_until_ended(int((tmp_path / "child").read_text()))
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [(one["name"], one["state"]) for one in results["parts"]] == [("quick", "done")]
    assert not (tmp_path / "hanging-scratch").exists()
