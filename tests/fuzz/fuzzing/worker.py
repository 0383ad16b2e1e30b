"""One target in a process of its own: searched by atheris, or its inputs read once more.

``python -m fuzzing.worker search TARGET SECONDS OUT`` looks for inputs that reach new code, with
interpreted loops. ``replay`` reads all of them with compiled loops that check bounds, and measures
time and memory of each. ``lines`` counts the lines that they reach.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzzing import loops
from fuzzing.report import Folders

if TYPE_CHECKING:
    from fuzzing.target import Target

_PATIENCE = 20.0
"""Seconds of one core for an input of interpreted loops; the replay is as strict as promised."""

_SLOWLY = 1.0
_GREEDILY_KB = 32 << 10
_KEPT_SLOW = 40
_RSS_MB = 2048
_PLAIN = 0.5
"""The share of changes of plain bytes that libFuzzer makes, which knows what was compared."""


class TooLongError(BaseException):
    """An input takes too long; no reader may catch this."""


def search(name: str, seconds: int, folders: Folders) -> None:
    """Let atheris look for new code, and keep what goes wrong; it ends the process."""
    import atheris

    atheris.instrument_imports(include=["patchc"]).__enter__()
    loops.interpret()
    from fuzzing.mutation.draws import Draws
    from fuzzing.targets import TARGETS

    target, slow = TARGETS[name], 0
    signal.signal(signal.SIGVTALRM, stop)

    def one(data: bytes) -> None:
        nonlocal slow
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = _read(target, data, folders)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if (seconds > _SLOWLY or grown > _GREEDILY_KB) and slow < _KEPT_SLOW:
            slow += 1
            folders.keep_to_replay(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draws = Draws(seed)

        def plain(part: bytes, longest: int) -> bytes:
            if not part or draws.chance(_PLAIN):
                return draws.havoc(part, longest)
            return bytes(atheris.Mutate(part, max(longest, 1)))

        draws.plain = plain
        for _ in range(draws.choice((1, 1, 2, 3))):
            data = target.mutated(data, draws)
        return data[:most]

    for number, seed in enumerate(target.seeds()):
        _read(target, seed, folders)  # atheris tells of each module that is loaded late
        (folders.corpus / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": target.most_bytes,
        "rss_limit_mb": _RSS_MB,
        "timeout": 3 * int(_PATIENCE),
        "print_final_stats": 1,
        "artifact_prefix": f"{folders.findings}/",
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(folders.corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def stop(*_: object) -> None:
    """End an input that takes too long."""
    raise TooLongError


def _read(target: Target, data: bytes, folders: Folders) -> float:
    """Let a target read an input; keep it where that is a finding. Returns seconds of one core."""
    from fuzzing.target import attempt, place_of

    begun = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, _PATIENCE)
    error: BaseException | None
    try:
        error = attempt(target, data)
    except TooLongError as late:
        error = late
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if error:
        told = "".join(traceback.format_exception(error))
        folders.keep(place_of(error), data, told)
    return time.process_time() - begun


def replay(name: str, folders: Folders) -> dict[str, Any]:
    """Read all inputs with compiled loops; the greatest time and memory of one."""
    loops.check_bounds()
    from fuzzing.targets import TARGETS

    target = TARGETS[name]
    signal.signal(signal.SIGVTALRM, stop)
    for seed in target.seeds():
        _read(target, seed, folders)  # the loops are compiled before anything is measured
    longest, most, count = 0.0, 0, 0
    for path in folders.inputs():
        data = path.read_bytes()
        count += 1
        spent = _read(target, data, folders)
        if spent > target.cpu_seconds(data):
            spent = min(spent, _read(target, data, folders))
        if spent > target.cpu_seconds(data):
            folders.keep("slow", data, f"{spent:.1f} s for {len(data)} bytes")
        tracemalloc.start()
        _read(target, data, folders)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > target.memory:
            folders.keep("memory", data, f"{peak:,} bytes for {len(data)} bytes")
        longest, most = max(longest, spent), max(most, peak)
    return {"replayed": count, "longest_s": round(longest, 3), "most_mb": round(most / 2**20, 1)}


def lines(name: str, folders: Folders) -> dict[str, Any]:
    """Count the lines of a target's modules that its inputs reach."""
    import coverage

    root = Path(__file__).parents[3]
    loops.interpret()
    watched = coverage.Coverage(data_file=None, include=[f"{root}/*"])
    watched.start()
    from fuzzing.target import attempt
    from fuzzing.targets import TARGETS

    target = TARGETS[name]
    for path in folders.inputs():
        attempt(target, path.read_bytes())
    watched.stop()
    reached = total = 0
    for path in _files_of(target.modules):
        _, statements, _, missing, _ = watched.analysis2(str(path))
        total += len(statements)
        reached += len(statements) - len(missing)
    return {"lines": reached, "lines_of": total}


def _files_of(modules: tuple[str, ...]) -> list[Path]:
    root = Path(__file__).parents[3]
    found: list[Path] = []
    for module in modules:
        path = root / module.replace(".", "/")
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [path.resolve() for path in found]


def main() -> None:
    """Do one of the three."""
    what, name, *rest = sys.argv[1:]
    folders = Folders(Path(rest[-1]), name)
    if what == "search":
        search(name, int(rest[0]), folders)
    else:
        told = {"replay": replay, "lines": lines}[what](name, folders)
        print(json.dumps(told))


if __name__ == "__main__":
    main()
