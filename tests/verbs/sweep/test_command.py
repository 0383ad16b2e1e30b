"""``patchc sweep``: its tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_llama import write_data
from typer.testing import CliRunner

from patchc.cli.main import app
from patchc.errors import UsageError


def test_the_command_shows_the_trials(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    out, figures = tmp_path / "sweep.jsonl", tmp_path / "figures"
    arguments = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"]]
    arguments += ["--harmful", requests["harmful"], "--harmless", requests["harmless"]]
    arguments += ["-o", out, "--figures", figures, "--max-new-tokens", "5"]
    words = [*map(str, arguments), "--alpha", "2,40", "--seed", "0, 1"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "alpha=40.0 seed=1" in shown.output
    assert "model.layers.1" not in shown.output
    assert "misanswered" in shown.output
    for name in ("rates.png", "parameters.png"):
        assert (figures / name).read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(app, [*words, "--json"])
    report = json.loads(again.output)["report"]
    points = [(2, 0), (2, 1), (40, 0), (40, 1)]
    assert sorted(tuple(one["recipe"].values()) for one in report["trials"]) == points
    costs = [one["cost"] for one in report["trials"]]
    assert costs == sorted(costs)
    assert all(one["worse"] == [] and one["patch_bytes"] > 0 for one in report["trials"])
    assert report["base"]["harmful"]["total"] == report["trials"][0]["harmful"]["total"] == 3
    assert "selected" not in again.output
    assert "outcomes" not in again.output
    bad = CliRunner().invoke(app, [*words, "--beta", "1,x"])
    assert bad.exit_code == UsageError.exit_code
    assert "--beta is '1,x'" in bad.output


def test_the_command_line_says_what_a_trial_makes_worse(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    """The file is of a sweep that went on: outcomes of more requests are written into it."""
    out = tmp_path / "sweep.jsonl"
    words = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"], "-o", out]
    words += ["--harmful", requests["harmful"], "--harmless", requests["harmless"]]
    words += ["--max-new-tokens", "2", "--alpha", "3,4", "--ratio", "0.5"]
    words = list(map(str, words))
    assert CliRunner().invoke(app, words).exit_code == 0
    header, *lines = map(json.loads, out.read_text().splitlines())
    lines[0]["outcomes"]["harmless"] = ["answered"] * 6
    lines[1]["outcomes"]["harmless"] = ["misanswered"] * 6
    lines[2]["outcomes"]["harmless"] = ["misanswered"] * 5 + ["answered"]
    write_data(out, [header, *lines])
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    rows = {cells[0]: cells for cells in map(str.split, shown.output.splitlines()) if cells}
    assert "worse than the base" in shown.output
    assert rows["alpha=3.0"][1] == "beta=1.5"
    assert rows["alpha=3.0"][-1] == "misanswered"
    assert rows["alpha=4.0"][1] == "beta=2.0"
    assert rows["alpha=4.0"][-1] != "misanswered"
    report = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)["report"]
    worse = {one["recipe"]["alpha"]: one["worse"] for one in report["trials"]}
    assert worse == {3: ["misanswered"], 4: []}


def test_the_command_line_shows_rates_by_kind(
    models: dict[str, Path], requests: dict[str, Path], tmp_path: Path
) -> None:
    harmless = [json.loads(line) for line in requests["harmless"].read_text().splitlines()]
    kinds = [{**record, "kind": "hot"} for record in harmless]
    named = write_data(tmp_path / "harmless.jsonl", kinds)
    words = ["sweep", models["base"], "--se", models["se"], "--osm", models["osm"]]
    words += ["--harmful", requests["harmful"], "--harmless", named, "--alpha", "3"]
    words += ["--max-new-tokens", "2", "-o", tmp_path / "sweep.jsonl"]
    shown = CliRunner().invoke(app, list(map(str, words)))
    assert shown.exit_code == 0, shown.output
    assert "over-refusal: hot" in shown.output
    assert "misanswered: hot" not in shown.output
    report = json.loads(CliRunner().invoke(app, [*map(str, words), "--json"]).output)["report"]
    for name in ("base", "best"):
        assert report["kinds"][name].keys() == {"harmless", "misanswered"}
        assert report["kinds"][name]["harmless"]["hot"]["total"] == 2
