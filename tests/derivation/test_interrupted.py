"""A derivation that is interrupted anywhere goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import derivations
import pytest
from derivations import OPTIONS, STREAMED, derived, digests_of, material_of, written
from interrupted import InterruptedRunError, Moments, watched
from tiny_families import write_family

from patchc.derivation.direction import Material
from patchc.derivation.direction_report import DirectionReport
from patchc.errors import StorageError
from patchc.layered.scratch import noted

LAYERS = 3
LAYOUT = replace(STREAMED, states_in_scratch=True, ahead=False)
OPTIONS_NPO = replace(OPTIONS, objective="npo", score_samples=2)
MOMENTS = """
file se-states
write se-asked
remove se-asked
progress score base for se
write se-base-scoring
note se-base-scoring
write se-base-sums
note se-base-sums-done
remove se-base-scoring
write se-step
write se-gradients
progress tune se
note se-course
read se-gradients
read se-states
write se-states
write se-states-counter
note se-states
remove se-gradients
remove se-step
write se-tuned-scoring
progress score se
note se-tuned-scoring
write se-tuned-sums
note se-tuned-sums-done
remove se-tuned-scoring
note report-se
read se-tuned-sums
record
remove se-
"""


@dataclass(frozen=True)
class Whole:
    """A derivation that nothing interrupted: its files, and its moments."""

    base: Path
    material: Material
    digests: dict[str, str]
    moments: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    base = write_family(folder / "base", "llama, tied")
    material = material_of(folder, OPTIONS_NPO)
    with short_runs():
        expected = written(base, material, folder / "out", OPTIONS_NPO)
    with watched(None) as moments:
        run(base, material, folder, moments)
    assert digests_of(folder / "out") == expected
    return Whole(base, material, expected, moments.seen)


@contextmanager
def short_runs() -> Iterator[None]:
    """The optimiser takes many small steps over a tensor; other runs may give other bits."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("adamw", "states"):
            patch.setattr(f"patchc.derivation.{module}.RUN", 200)
        yield


def run(base: Path, material: Material, folder: Path, moments: Moments) -> None:
    out, scratch = folder / "out", folder / "scratch"
    with short_runs():
        derived(base, material, out, OPTIONS_NPO, LAYOUT, scratch, moments.progress)


@pytest.mark.parametrize("moment", MOMENTS.strip().splitlines())
def test_it_goes_on_from_there(tmp_path: Path, whole: Whole, moment: str) -> None:
    chosen = [number for number, seen in enumerate(whole.moments) if seen == moment]
    last = random.Random(moment).choice(chosen)
    with watched(last) as first, pytest.raises(InterruptedRunError):
        run(whole.base, whole.material, tmp_path, first)
    assert first.seen == whole.moments[: last + 1]
    notes = noted(tmp_path / "scratch", {})
    with watched(None) as second:
        run(whole.base, whole.material, tmp_path, second)
    assert digests_of(tmp_path / "out") == whole.digests
    assert not (tmp_path / "scratch").exists()
    if "report-se" not in notes or moment == "record":
        check_what_was_left(second, notes)


def check_what_was_left(moments: Moments, notes: dict[str, Any]) -> None:
    """Only steps and layers are reported that were not finished before."""
    steps = OPTIONS_NPO.se.steps
    taken = max(notes.get("se-states", 0), notes.get("se-course", {"step": 0})["step"])
    reported = [event.done for event in moments.events if event.stage == "tune se"]
    assert reported == list(range(taken + 1, steps + 1))
    for kind, stage in (("base", "score base for se"), ("tuned", "score se")):
        known = notes.get(f"se-{kind}-scoring", {"forward": 1, "back": 0})
        passed = known["forward"] - 1 + max(0, known["back"] - 1)
        if f"se-{kind}-sums-done" in notes:
            passed = 2 * LAYERS
        reported = [event.done for event in moments.events if event.stage == stage]
        assert reported == list(range(passed + 1, 2 * LAYERS + 1))


def test_processes_that_are_killed_one_after_another_come_to_the_end(tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "gemma")
    expected = written(base, material_of(tmp_path, OPTIONS), tmp_path / "out", OPTIONS)
    support = Path(derivations.__file__).parent
    finished = subprocess.run(
        [sys.executable, support / "killed_derivation.py", tmp_path, "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 3
    assert digests_of(tmp_path / "out") == expected
    assert not (tmp_path / "scratch").exists()


def test_a_direction_that_is_written_is_not_derived_again(tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "llama")
    material = material_of(tmp_path, OPTIONS)
    expected = written(base, material, tmp_path / "out", OPTIONS)

    def run_pair(moments: Moments) -> list[DirectionReport]:
        return [
            replace(report, path=Path(report.path.name))
            for report in derived(
                base, material, tmp_path / "out", OPTIONS, STREAMED, tmp_path / "scratch",
                moments.progress,
            )
        ]  # fmt: skip

    with watched(None) as moments:
        reports = run_pair(moments)
    shutil.rmtree(tmp_path / "out")
    last = moments.seen.index("progress tune osm")
    with watched(last) as moments, pytest.raises(InterruptedRunError):
        run_pair(moments)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["se"]
    assert not list((tmp_path / "scratch").glob("se-*"))
    with watched(None) as moments:
        assert run_pair(moments) == reports
    assert {event.stage for event in moments.events}.isdisjoint({"tune se", "score se"})
    assert digests_of(tmp_path / "out") == expected


def test_a_direction_whose_output_was_removed_is_derived_anew(tmp_path: Path) -> None:
    """Its scratch files are gone, and nothing speaks of them any more."""
    base = write_family(tmp_path / "base", "llama")
    material = material_of(tmp_path, OPTIONS)
    expected = written(base, material, tmp_path / "out", OPTIONS)
    args = base, material, tmp_path / "out", OPTIONS, STREAMED, tmp_path / "scratch"

    def stop(event: Any) -> None:
        if event.stage == "tune osm":
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        derived(*args, stop)
    shutil.rmtree(tmp_path / "out/se")
    (tmp_path / "out/se").mkdir()
    derived(*args)
    assert digests_of(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("call", "moment"),
    [
        ("pwritev", "write se-states"),
        ("pwritev", "write se-tuned-sums"),
        ("posix_fallocate", "file se-gradients"),
        ("posix_fallocate", "file se-tuned-scoring"),
    ],
)
def test_a_full_disk_ends_it_and_the_next_run_goes_on(
    tmp_path: Path, whole: Whole, call: str, moment: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fill() -> None:
            patch.setattr(os, call, full)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        last = whole.moments.index(moment) + whole.moments.count(moment) - 1
        with watched(last, fill) as first, pytest.raises(StorageError, match="the disk is full"):
            run(whole.base, whole.material, tmp_path, first)
    notes = noted(tmp_path / "scratch", {})
    assert notes["se-base-sums-done"]
    with watched(None) as second:
        run(whole.base, whole.material, tmp_path, second)
    assert digests_of(tmp_path / "out") == whole.digests
    check_what_was_left(second, notes)


def test_the_ceiling_is_met_again(tmp_path: Path) -> None:
    """What ends a tuning is not noted; the batch is looked at once more."""
    base = write_family(tmp_path / "base", "llama")
    tuning = replace(OPTIONS.se, learning_rate=0.05, steps=20)
    options = replace(OPTIONS, directions=("se",), se=tuning, anchor_weight=0.0)
    material = material_of(tmp_path, options, anchored=False)
    with watched(None) as moments:
        (report,) = derived(base, material, tmp_path / "out", options, progress=moments.progress)
    ceiling = report.first_loss + 0.5 * (report.last_loss - report.first_loss)
    options = replace(options, se=replace(tuning, loss_ceiling=ceiling))
    shutil.rmtree(tmp_path / "out")
    expected = written(base, material, tmp_path / "out", options)
    args = base, material, tmp_path / "out", options, STREAMED, tmp_path / "scratch"

    def stop(event: Any) -> None:
        if event.stage == "score se":
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        derived(*args, stop)
    (again,) = derived(*args)
    assert again.at_ceiling
    assert 0 < again.steps < 20
    assert digests_of(tmp_path / "out") == expected
