"""Every block of commands or Python of README, tutorial and how-to runs, and prints what it shows.

One page: ``pytest tests/docs/test_blocks.py -k how-to/sign-and-verify``.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from page_blocks import Block, blocks_of, steps_of
from page_shell import Shell
from page_world import copy_world
from shown_output import matches

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ("README.md", "docs/index.md", "docs/tutorial/*.md", "docs/how-to/*.md")
    for page in sorted(ROOT.glob(pattern))
]
MOST_NOT_RUN = 16
"""Blocks that do not run, in all pages together."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix("")).removeprefix("docs/")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_run_and_print_what_the_page_shows(
    page: Path, world: Path, programs: Path, in_folder: Path
) -> None:
    blocks = blocks_of(page)
    commands = "\n".join(block.text for block in blocks if block.runs)
    copy_world(world, in_folder, commands)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = None
    with Shell(in_folder, [programs, Path(sys.executable).parent]) as shell:
        for block in blocks:
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.title:
                write_shown(in_folder / block.title, block)
            elif block.language == "text" and printed is not None:
                check(block.text, printed, block, where)
            elif block.runs and block.language == "python":
                printed = run_python(block, names, where)
                continue
            elif block.runs:
                run_commands(block, shell, where)
            printed = None


def write_shown(path: Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text)


def run_commands(block: Block, shell: Shell, where: str) -> None:
    if block.language == "sh":
        code, real = shell.run(block.text, stops=True)
        assert code == 0, f"{where}: exit code {code}:\n{real}"
        return
    steps = steps_of(block)
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        code, real = shell.run(step.command)
        place = f"{where.rsplit(':', 1)[0]}:{step.line}: $ {step.command}"
        if not (after and after.command == "echo $?"):
            assert code == 0, f"{place}\nexit code {code}:\n{real}"
        check(step.output, real, block, place)


def run_python(block: Block, names: dict[str, Any], where: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a page may leave a file to Python
        exec(compile("\n" * block.line + block.text, where, "exec"), names)
    return out.getvalue()


def check(shown: str, real: str, block: Block, place: str) -> None:
    if not matches(shown, real, any_number=block.varies is not None):
        pytest.fail(f"{place}\nthe page shows:\n{shown}\nand it prints:\n{real}", pytrace=False)


def test_few_blocks_do_not_run_and_each_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [
        f"{name_of(page)}:{block.line}: {block.not_run}"
        for page in PAGES
        for block in blocks_of(page)
        if block.not_run
    ]
    with capsys.disabled():
        print("", *reasons, sep="\n")
    assert len(reasons) <= MOST_NOT_RUN


def test_every_block_with_a_command_is_marked_as_one() -> None:
    unmarked = [
        f"{name_of(page)}:{block.line}"
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in ("console", "sh", "python")
        and any(
            line.startswith(("$ ", "patchc ", "make ", "pip ")) for line in block.text.split("\n")
        )
    ]
    assert unmarked == []
