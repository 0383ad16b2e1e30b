"""``patchc fix``: its tables, plan, exit codes and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


def command(folder: Path, out: Path, *more: object) -> list[object]:
    """The command line of a fix of the folder's requests, with few steps."""
    files = [f"--{name}={folder / name}.jsonl" for name in ("harmful", "harmless", "utility")]
    judge = ["--judge", "fit_inputs:says_ash", "--max-new-tokens", 6, "--device", "cpu"]
    few = ["--budget", 5, "--density", 0.5, "--best-effort"]
    return ["fix", folder / "base", "-o", out, *files, *judge, *few, *more]


def test_the_command_shows_both_parts_and_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, shown, _ = run(*command(folder, out))
    report = json.loads((out / "report.json").read_bytes())
    assert code == 0
    assert "test: base" in shown
    rates = [report["development"]["comparison"], report["test"]]
    for rate in (one[model]["harmful"] for one in rates for model in ("base", "patched")):
        assert f"{100 * rate['value']:.1f} %" in shown
    assert all(sentence in shown for sentence in report["verdict"])
    code, printed, _ = run(*command(folder, out, "--json"))
    assert (code, json.loads(printed)) == (0, report)


def test_the_command_shows_a_plan(folder: Path, tmp_path: Path) -> None:
    code, shown, _ = run(*command(folder, tmp_path / "out", "--dry-run"))
    assert code == 0
    assert "20 for development" in shown
    assert "at most 5 steps" in shown
    assert "nothing was written" in shown
    assert not (tmp_path / "out").exists()
    assert shown.splitlines()[-1].startswith("next: patchc fix ")
    code, printed, _ = run(*command(folder, tmp_path / "out", "--dry-run", "--json"))
    assert json.loads(printed)["requests"]["utility"]["test"] == 6


def test_the_plan_of_a_finished_fix_says_that_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(*command(folder, out))[0] == 0
    code, shown, _ = run(*command(folder, out, "--dry-run"))
    left, following = shown.splitlines()[-2:]
    assert code == 0
    assert left == f"nothing is left to do: {out / 'fix.patchc'} is there, and tested"
    assert following == f"next: patchc verify {out / 'fix.patchc'} {folder / 'base'}"
    (out / "fix.patchc").unlink()
    shown = run(*command(folder, out, "--dry-run"))[1]
    assert shown.splitlines()[-1].startswith("next: patchc fix ")


def test_the_command_ends_with_20_where_nothing_fits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_all.py").write_text(
        "def judge(prompts, replies):\n    return ['sage' in prompt for prompt in prompts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = command(folder, tmp_path / "out", "--judge", "of_all:judge", "--opening", "mix")
    line.remove("--best-effort")
    code, shown, complaint = run(*line)
    report = json.loads((tmp_path / "out/report.json").read_bytes())
    assert code == 20
    assert "no point lowers harm and over-refusal" in complaint
    assert "larger learning rate" in complaint
    assert "docs/how-to/when-fix-finds-nothing.md" in complaint
    assert report["verdict"][0] in shown
    assert f"step {report['development']['points'][0]['step']}" in shown


@pytest.mark.parametrize("more", [(), ("--opening", "mix")], ids=["no opening", "an opening"])
def test_a_judge_that_knows_no_refusal_ends_it_before_the_derivation(
    folder: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    line = command(folder, tmp_path / "out", "--judge", "phrases", *more)
    code, _, complaint = run(*line)
    assert code == 15
    assert 'It says "' in complaint
    assert "--judge module:function" in complaint
    assert not (tmp_path / "out/work/derived").exists()


def test_steps_that_were_too_large_are_told(folder: Path, tmp_path: Path) -> None:
    """The model answers everything then, and the judge is not what is wrong."""
    line = command(folder, tmp_path / "out", "--margin-learning-rate", 0.1, "--margin-steps", 6)
    line.remove("--best-effort")
    code, shown, complaint = run(*line)
    assert code == 20
    assert "harm is at 100.0 % and over-refusal at 0.0 %" in shown
    assert "The margin agrees" not in shown
    assert "smaller learning rate" in complaint
    assert "docs/how-to/when-fix-finds-nothing.md" in complaint
    assert "larger" not in complaint.replace("too large", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--harmful", "h"], "--harmless is missing"),
        (["--harmful", "h", "--harmless", "s", "--test-utility", "u"], "to split and as parts"),
        (["--dev-harmful", "h", "--test-harmful", "h"], "--dev-harmless is missing"),
        (
            [f"--{part}-{name}=x" for part in ("dev", "test") for name in ("harmful", "harmless")]
            + ["--dev-utility=u"],
            "--test-utility is missing",
        ),
        (
            ["--harmful", "h", "--harmless", "s", "--objective", "pair", "--density", "0.1"],
            "--density is for a merge",
        ),
        (
            ["--harmful", "h", "--harmless", "s", "--objective", "pair", "--margin-steps", "9"],
            "are for the objective margin",
        ),
        (["--harmful", "h", "--harmless", "s", "--budget", "soon"], "--budget is 'soon'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, complaint = run("fix", "base", "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert message in complaint
    assert not (tmp_path / "out").exists()
