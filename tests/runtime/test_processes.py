"""Commands under torchrun: the same bytes as from one process, or a clean failure.

Every run starts torch in each rank, which takes seconds: few runs, each for several things.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ranks
from build_inputs import random_inputs
from tiny_checkpoints import normal, nudge, tree, write_model

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import RankError, WrongBaseError

NORM = "model.norm.weight"
IN_THE_MIDDLE = """
import os, signal
import patchc.compiler.steps as compiling
from patchc.patching.transition import Transition

def befall(*arguments, **options):
    {}

compiling.changed_steps = Transition.cross = befall
"""
KILL, BUG = "os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError('a bug')"
FULL = "raise OSError(28, 'No space left on device')"
FROZEN = """
import os, signal
from patchc.runtime.torchrun import join

with join() as ranks:
    ranks.gather("start", lambda: str(os.getpid()).encode())
    if ranks.rank:
        {}
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        ranks.gather("end")
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        os._exit(19)
"""
STORE = """
import time
from torch.distributed import TCPStore

store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Models:
    """A base with tuned models and scores for a build, and an update of more than values."""

    folder: Path
    base: Path
    se: Path
    osm: Path
    update: Path
    patch: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Five scored tensors of different sizes, most of whose scores tie, in three shards."""
    folder = tmp_path_factory.mktemp("models")
    shapes = {f"model.layers.{i}.mlp.up_proj.weight": (37 + 11 * i, 130) for i in range(5)}
    inputs = random_inputs(shapes | {NORM: (130,)}, levels=7, unscored=(NORM,))
    paths = inputs.write(folder, {"base": 3})
    changed = {name: nudge(value, 0.1, 1) for name, value in inputs.base.items()}
    changed["model.layers.9.mlp.up_proj.weight"] = changed.pop(NORM)
    changed["lm_head.weight"] = normal((20, 30), "F32", 3)
    update = write_model(folder / "update", changed, 2, side_files={"config.json": "{}"})
    patch = folder / "update.patchc"
    patchc.diff(paths["base"], update, out=patch)
    return Models(folder, paths["base"], paths["se"], paths["osm"], update, patch)


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"as_rank.py"}


def test_diff_apply_and_revert_give_the_bytes_of_one_process(
    models: Models, tmp_path: Path
) -> None:
    for size, out in ((2, "up.patchc"), (3, "again.patchc")):
        ended = ranks.run(size, "diff", models.base, models.update, "-o", out, cwd=tmp_path)
        assert (ended.code, ended.errors) == (0, [])
        assert ended.out.count(f"diff: wrote {out}") == 1
        assert (tmp_path / out).read_bytes() == models.patch.read_bytes()
    ended = ranks.run(3, "apply", models.patch, models.base, "-o", "patched", cwd=tmp_path)
    assert (ended.code, ended.errors) == (0, [])
    assert ended.out.count("apply: done, every digest as promised") == 1
    assert tree(tmp_path / "patched") == tree(models.update)
    ended = ranks.run(2, "revert", models.patch, "patched", "-o", "back", cwd=tmp_path)
    assert (ended.code, ended.errors) == (0, [])
    assert tree(tmp_path / "back") == tree(models.base)
    assert _left(tmp_path) == {"up.patchc", "again.patchc", "patched", "back"}


@pytest.mark.parametrize(("size", "scope"), [(2, "tensor"), (3, "global")])
def test_build_gives_the_bytes_of_one_process(
    models: Models, tmp_path: Path, size: int, scope: str
) -> None:
    alone = tmp_path / "alone.patchc"
    recipe = Recipe(scope=scope)  # type: ignore[arg-type]
    report = patchc.build(models.base, se=models.se, osm=models.osm, out=alone, recipe=recipe)
    assert report.entries > 1000
    ended = ranks.run(
        size, "build", models.base, "--se", models.se, "--osm", models.osm, "--scope", scope,
        "--alpha", 5, "--beta", 4.5, "-o", "shared.patchc", "--json", cwd=tmp_path,
    )  # fmt: skip
    # One rank alone says that the components have no record.
    assert (ended.code, len(ended.errors)) == (0, 1)
    assert "no derive.json there" in ended.errors[0]
    assert ended.out.count(report.root) == 1
    assert (tmp_path / "shared.patchc").read_bytes() == alone.read_bytes()


def test_additive_values_and_their_merge_are_shared_too(models: Models, tmp_path: Path) -> None:
    alone, merged = tmp_path / "alone.patchc", tmp_path / "merged"
    patchc.build(models.base, se=models.se, osm=models.osm, out=alone, values="additive")
    patchc.apply(alone, models.base, out=merged, alpha=2)
    ended = ranks.run(
        2, "build", models.base, "--se", models.se, "--osm", models.osm, "--values", "additive",
        "-o", "shared.patchc", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0
    # One rank alone says that the scales are not fitted, and that the components have no record.
    assert [line[:16] for line in ended.errors] == ["patchc: warning:"] * 2
    assert (tmp_path / "shared.patchc").read_bytes() == alone.read_bytes()
    ended = ranks.run(
        2, "apply", "shared.patchc", models.base, "--alpha", 2, "-o", "shared", cwd=tmp_path
    )
    assert (ended.code, ended.errors) == (0, [])
    assert tree(tmp_path / "shared") == tree(merged)


def test_a_global_merge_with_an_election_is_shared_too(models: Models, tmp_path: Path) -> None:
    alone = tmp_path / "alone.patchc"
    recipe = MergeRecipe(method="ties", scope="global")
    patchc.build(models.base, tuned=[models.se, models.osm], out=alone, recipe=recipe)
    ended = ranks.run(
        2, "build", models.base, "--recipe", "ties", "--scope", "global", "--tuned", models.se,
        "--tuned", models.osm, "-o", "shared.patchc", cwd=tmp_path,
    )  # fmt: skip
    assert (ended.code, ended.errors) == (0, [])
    assert (tmp_path / "shared.patchc").read_bytes() == alone.read_bytes()


def test_more_ranks_than_tensors_write_the_same_bytes(tmp_path: Path) -> None:
    base = {"a": normal((40, 50), "BF16", 0), "b": np.zeros((0, 3), np.float32)}
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "tuned", base | {"a": nudge(base["a"], 0.2, 1)})
    patchc.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "alone.patchc")
    ended = ranks.run(4, "diff", "base", "tuned", "-o", "shared.patchc", cwd=tmp_path)
    assert (ended.code, ended.errors) == (0, [])
    assert (tmp_path / "shared.patchc").read_bytes() == (tmp_path / "alone.patchc").read_bytes()
    ended = ranks.run(4, "apply", "shared.patchc", "base", "-o", "patched", cwd=tmp_path)
    assert (ended.code, ended.errors) == (0, [])
    assert tree(tmp_path / "patched") == tree(tmp_path / "tuned")


def test_a_wrong_base_is_told_once_by_the_first_tensor(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongBaseError) as alone:
        patchc.apply(models.patch, models.se, out="out")
    ended = ranks.run(2, "apply", models.patch, models.se, "-o", "out", cwd=tmp_path)
    assert ended.code
    assert ended.errors == [f"patchc: error: {alone.value}"]
    assert _left(tmp_path) == set()


def test_a_model_that_holds_the_patch_is_told_once(models: Models, tmp_path: Path) -> None:
    ended = ranks.run(2, "apply", models.patch, models.update, "-o", "out", cwd=tmp_path)
    assert ended.code
    told = f"{models.update} already holds {models.patch}; there is nothing to apply"
    assert ended.errors == [f"patchc: error: {told}"]
    assert _left(tmp_path) == set()


def test_an_output_that_exists_is_told_once_and_left(models: Models, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    ended = ranks.run(3, "diff", models.base, models.update, "-o", "out", cwd=tmp_path)
    assert ended.code
    assert ended.errors == [
        "patchc: error: output out already exists; remove it or choose another path"
    ]
    assert (tmp_path / "out").read_text() == "mine"
    assert _left(tmp_path) == {"out"}


@pytest.mark.parametrize(
    ("what", "verb", "rank"),
    [
        pytest.param(KILL, "diff", 0, id="writer killed"),
        pytest.param(KILL, "apply", 0, id="stager killed"),
        pytest.param(KILL, "apply", 1, id="killed"),
        pytest.param(BUG, "diff", 1, id="bug"),
        pytest.param(FULL, "apply", 1, id="disk full"),
    ],
)
def test_whatever_befalls_a_rank_nothing_is_left(
    models: Models, tmp_path: Path, verb: str, what: str, rank: int
) -> None:
    arguments = (models.base, models.se) if verb == "diff" else (models.patch, models.base)
    ended = ranks.run(
        2, verb, *arguments, "-o", "out", cwd=tmp_path,
        befalls=rank, what=IN_THE_MIDDLE.format(what),
    )  # fmt: skip
    assert ended.code
    assert ended.out == ""
    assert _left(tmp_path) == set()
    if what == BUG:
        assert ended.errors == []
        assert ended.stderr.count("ValueError: a bug") == 1
    else:
        assert len(ended.errors) == 1
    if what == FULL:
        assert "the disk is full" in ended.errors[0]


def test_an_interrupt_stops_all_ranks(models: Models, tmp_path: Path) -> None:
    ended = ranks.run(
        2, "apply", models.patch, models.base, "-o", "out", cwd=tmp_path, befalls=1,
        what=IN_THE_MIDDLE.format("import time; os.kill(os.getppid(), 15); time.sleep(2)"),
    )  # fmt: skip
    assert ended.code
    assert ended.errors == [
        "patchc: interrupted; nothing was left at the output; torchrun says which rank ended first"
    ]
    assert _left(tmp_path) == set()


def test_a_frozen_rank_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    code, out = _wait_for_a_frozen_rank(tmp_path, FROZEN.format("pass"), {"MASTER_PORT": port})
    assert "RankError rank 1 of 2 has given no sign of life for 3 seconds" in out
    assert code == RankError.exit_code


def test_a_rank_that_waits_notices_that_torchrun_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STORE], stdout=subprocess.PIPE, text=True
    ) as store:
        assert store.stdout
        port = store.stdout.readline().strip()
        script = FROZEN.format(f"os.kill({store.pid}, signal.SIGKILL)")
        place = {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        code, out = _wait_for_a_frozen_rank(tmp_path, script, place)
        store.kill()
    assert "RankError rank 0 of 2 does not reach torchrun any more" in out
    assert code == RankError.exit_code


def _wait_for_a_frozen_rank(
    folder: Path, script: str, environment: dict[str, str]
) -> tuple[int, str]:
    """The exit code and output of rank 0, which waits for rank 1."""
    place = {"MASTER_ADDR": "localhost", "WORLD_SIZE": "2", "PATCHC_RANK_TIMEOUT": "3"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=folder,
            env=os.environ | place | environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    out, _ = processes[0].communicate(timeout=120)
    processes[1].send_signal(signal.SIGKILL)
    processes[1].communicate()
    return processes[0].returncode, out


@pytest.mark.parametrize("slow", [0, 1])
def test_what_works_alone_says_so_once(models: Models, tmp_path: Path, slow: int) -> None:
    ended = ranks.run(
        *(2, "verify", models.patch, models.base),
        cwd=tmp_path,
        befalls=slow,
        what="import time; time.sleep(1)",
    )
    assert ended.code
    assert len(ended.errors) == 1
    assert "verify works as one process" in ended.errors[0]


@pytest.mark.parametrize(
    "start",
    [
        ["-c", "from patchc.cli.entry import main; main()"],
        ["-m", "patchc"],
    ],
    ids=["script", "one rank"],
)
def test_a_command_that_is_no_rank_works_alone(
    models: Models, tmp_path: Path, start: list[str]
) -> None:
    """A script inside somebody's training run, and torchrun with one process: torch stays out."""
    several = "2" if "-c" in start else "1"
    block = "import sys; sys.modules['torch'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    subprocess.run(
        [sys.executable, *start, "diff", models.base, models.update, "-o", "up.patchc"],
        cwd=tmp_path,
        env=os.environ
        | {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": several}
        | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        check=True,
        timeout=120,
    )
    assert (tmp_path / "up.patchc").read_bytes() == models.patch.read_bytes()
