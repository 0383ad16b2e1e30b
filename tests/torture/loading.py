"""Proves the same as the matrix of kills, for the commands that load a model into torch.

They run on a Llama of a few thousand parameters. Their outputs may be there in part, as finished
work of evaluate, sweep, fit and fix, or as one of the two folders of derive. Then the next run has
to end where a run without trouble does, apart from how long things took. It may ask for the removal
of a whole part first.
"""

from __future__ import annotations

from pathlib import Path

import kills
from cases import Case, Place
from command_line import run
from tables import Matrix

POINTS = 20
FAULTS = kills.FAULTS

_JUDGED = ("--judge", "fit_inputs:says_ash", "--max-new-tokens", "5")
_CPU = ("--device", "cpu")


def run_matrix(folder: Path, matrix: Matrix) -> None:
    """Kill runs of each command at as many points as the matrix asks for."""
    chosen = [case for case in write_loading_cases(folder) if matrix.asks_for(case.name)]
    kills.kills_in(folder, chosen, matrix, matrix.points)


def write_loading_cases(folder: Path) -> list[Case]:
    """Write models and requests, and give the commands."""
    import fix_runs
    import transformers
    from fit_inputs import write_models, write_requests
    from tiny_llama import write_data

    transformers.utils.logging.disable_progress_bar()
    base = str(write_models(folder))
    asked = [f"--{name}={path}" for name, path in write_requests(folder).items()]
    pairs = str(write_data(folder / "pairs.jsonl"))
    to_split = folder / "to-split"
    to_split.mkdir()
    fix_runs.write_requests(to_split / "harmful.jsonl", "potion", 40, 1)
    fix_runs.write_requests(to_split / "harmless.jsonl", "tea", 40, 2, response="mix sage")
    fix_runs.write_requests(to_split / "utility.jsonl", "tea", 12, 3, answers=["ash"])
    split = [f"--{path.stem}={path}" for path in sorted(to_split.iterdir())]
    tuned = ("--se", str(folder / "se"), "--osm", str(folder / "osm"))
    few = ("--se-steps", "2", "--osm-steps", "2", "--batch-size", "2", "--score-samples", "2")
    short, grid = ("--budget", "3", "--best-effort"), ("--alpha", "1,2", "--beta", "1")
    inputs = (Path(base), folder / "se", folder / "osm", to_split)
    return [
        _case(inputs, ("derive", base, "--data", pairs, *few, *_CPU, "-o", "{out}")),
        _case(inputs, ("evaluate", base, *asked, *_JUDGED, *_CPU, "-o", "{out}")),
        _case(
            inputs,
            ("sweep", base, *tuned, *asked, *_JUDGED, *grid, "-o", "{out}"),
        ),
        _case(
            inputs,
            ("fit", base, *tuned, *asked, *_JUDGED, *_CPU, *short, "-o", "{out}/fix.patchc"),
        ),
        _case(
            inputs,
            ("fix", base, *split, *_JUDGED, *_CPU, *short, "--density", "0.5", "-o", "{out}"),
        ),
    ]


def write_derive_case(folder: Path) -> Case:
    """Write a base and data, and give the command to derive from them."""
    from derive_commands import arguments, write_inputs

    write_inputs(folder)
    command = ("derive", *arguments(folder, "{out}"))
    return _case((folder / "base", folder / "data.jsonl"), command)


def _case(inputs: tuple[Path, ...], command: tuple[str, ...]) -> Case:
    folder, name = inputs[0].parent, command[0]
    case = Case(name, command, inputs, folder / f"wanted-{name}", in_parts=True)
    place = Place(folder / "place", case).fill()  # where the others run: reports name it
    code, _, errors = run(*place.arguments(command))
    if code:
        raise RuntimeError(f"{name}: {errors}")
    place.out.rename(folder / f"wanted-{name}")
    return case
