"""What ``make gpu`` installs, plans and says, and its rehearsal from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import gpu.__main__ as script
import pytest
from gpu.claims import CLAIMS, Claim
from gpu.plan import BENCHMARKS, ROOT, Machine, Plan
from gpu.timed_parts import Outcome
from gpu.wheels import Requirement, Requirements, download, install

GIGABYTE = 10**9
LARGE = Machine(
    "a device", 140 * GIGABYTE, 120 * GIGABYTE, Path("/m"), 64 * GIGABYTE, 60 * GIGABYTE
)
SMALL = Machine("a device", 8 * GIGABYTE, 12 * GIGABYTE, Path("/m"), 3 * GIGABYTE, 6 * GIGABYTE)


def options_of(machine: Machine, name: str) -> dict[str, str]:
    """The options of a part's command, each with the word behind it."""
    command = next(p.command for p in Plan(machine, Path("/w"), []).parts() if p.name == name)
    return {one: other for one, other in pairwise(command) if one[0] == "-"}


def test_the_parts_fit_into_the_whole_run() -> None:
    parts = Plan(LARGE, Path("/w"), []).parts()
    assert [p.name for p in parts] == ["tests", "kernels", "derivation", "hot-patch", "streaming"]
    *first, last = parts
    assert sum(p.limit for p in first) + last.least < 60 * script.MINUTES
    assert all(p.least <= p.limit for p in parts)


def test_a_large_machine_takes_the_whole_models() -> None:
    assert options_of(LARGE, "hot-patch")["--gigabytes"] == "13.50"
    assert 4.4 * float(options_of(LARGE, "streaming")["--gigabytes"]) < 64
    assert options_of(LARGE, "derivation")["--layers"] == "12"


def test_a_small_machine_takes_what_fits() -> None:
    assert 2.1 * float(options_of(SMALL, "hot-patch")["--gigabytes"]) < 3
    assert 4.4 * float(options_of(SMALL, "streaming")["--gigabytes"]) < 3
    held = 12 * (262_144_000 + 202_383_360 * int(options_of(SMALL, "derivation")["--layers"]))
    assert held < (12 + 6) * GIGABYTE
    assert options_of(SMALL, "derivation")["--max-memory"] == "7GB"


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("numba>=0.61,<0.69", ("numba", ">=0.61,<0.69")),
        ("triton>=3.6; sys_platform == 'linux'", ("triton", ">=3.6")),
        ("lm-eval[hf]>=0.4.13", ("lm-eval", ">=0.4.13")),
        ("ml_dtypes>=0.5", ("ml-dtypes", ">=0.5")),
    ],
)
def test_requirements_are_read(line: str, parsed: tuple[str, str]) -> None:
    requirement = Requirement(line)
    assert (requirement.name, requirement.bounds) == parsed


def test_requirements_are_held_against_what_is_there() -> None:
    assert all(one.met() for one in Requirements().all())
    assert Requirement("pytest>=8.0,<1000").met()
    assert not Requirement("pytest>=1000").met()
    assert not Requirement("pytest>=0.1,<1").met()
    assert not Requirement("no-such-package").met()
    names = {one.name for one in Requirements().all()}
    assert {"blake3", "torch", "triton", "bitsandbytes", "pytest", "hypothesis"} <= names
    assert "mypy" not in names


def write_wheel(folder: Path, name: str, needs: str = "") -> None:
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}"
    files = {
        f"{name}.py": "VALUE = 7\n",
        f"{name}-1.0.dist-info/METADATA": about,
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def test_what_is_missing_comes_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    elsewhere = "Requires-Dist: patchc-elsewhere; sys_platform == 'plan9'\n"
    write_wheel(tmp_path, "patchc_stand_in", f"Requires-Dist: patchc-under-it\n{elsewhere}")
    write_wheel(tmp_path, "patchc_under_it", "Requires-Dist: pytest>=8.0\n")
    there, not_there = Requirement("patchc-stand-in>=1.0"), Requirement("patchc-no-wheel")
    folders = install([not_there, there], tmp_path, tmp_path / "prefix")
    assert there.met()
    assert not not_there.met()
    printed = capsys.readouterr().out
    assert printed.startswith(f"patchc-no-wheel: not installed from {tmp_path}")
    assert len(printed.splitlines()) == 1
    code = "import patchc_stand_in, patchc_under_it; print(patchc_stand_in.VALUE)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "7\n"


def test_what_stays_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wanted:
        def all(self) -> list[Requirement]:
            return [Requirement("patchc-no-wheel>=2"), Requirement("pytest>=1000")]

    monkeypatch.setattr(script, "Requirements", Wanted)
    path, absent, notes = script.prepare(None, tmp_path)
    assert (path, absent) == ([], {"patchc-no-wheel"})
    assert notes[0].startswith("pytest ")
    assert "pytest>=1000 is asked for" in notes[0]
    assert notes[1] == "Missing: patchc-no-wheel>=2; WHEELS=folder installs them."


def test_wheels_of_what_is_not_required_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not among the requirements"):
        download(tmp_path, ["patchc-no-wheel"])


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words[:40])
def test_a_claim_is_what_its_document_says(claim: Claim) -> None:
    text = " ".join((ROOT / claim.document).read_text(encoding="utf-8").split())
    assert claim.words in text
    assert claim.part in {one.name for one in Plan(LARGE, Path("/w"), []).parts()}


def test_only_figures_of_a_device_stand_beside_claims(tmp_path: Path) -> None:
    row = {"name": "snip, bf16", "milliseconds": 0.21, "share_of_a_copy": 0.853}
    outcome = Outcome("kernels", "killed", tables={"kernels": [row]})
    for device, expected in (("a device", "milliseconds 0.21, share of a copy 85.3%"), ("", "")):
        results = script.Results(tmp_path, {"device": device}, [])
        results.add(outcome, 1.0)
        content = json.loads((tmp_path / "results.json").read_text())
        measured = {c["measured"] for c in content["claims"] if c["row"] == "snip, bf16"}
        assert measured == {expected or "rehearsed"}
        assert content["kind"] == ("device" if device else "rehearsal")
        assert (script.REHEARSAL in (tmp_path / "results.md").read_text()) == (not device)


def test_the_rehearsal_runs_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpu", "--rehearse", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    states = {one["name"]: one["state"] for one in results["parts"]}
    derivation = "done" if (BENCHMARKS / "derive_memory.py").exists() else "not run"
    rest = dict.fromkeys(("tests", "kernels", "hot-patch", "streaming"), "done")
    assert states == rest | {"derivation": derivation}
    assert results["kind"] == "rehearsal"
    assert {claim["measured"] for claim in results["claims"]} <= {"rehearsed", "not rehearsed"}
    counts = results["parts"][0]["tables"]["tests"][-1]
    assert counts["passed"] > 0
    assert counts["failed"] == counts["errors"] == counts["skipped"] == 0
    tables = [line for line in done.stdout.splitlines() if line.startswith(tuple(rest))]
    assert len(tables) >= len(rest)
    assert all(line.endswith("(rehearsal on the CPU)") for line in tables)
