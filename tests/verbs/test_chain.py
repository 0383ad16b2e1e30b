"""Patches that follow one another: three categories patched in turn, shown by their digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_inputs import small_inputs
from tiny_checkpoints import normal, nudge, write_model
from typer.testing import CliRunner

import patchc
from patchc.cli.main import app

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def patches(tmp_path: Path) -> list[Path]:
    """Three patches, each from the last one's result."""
    weights = {NAME: normal((50, 60), "BF16", 1)}
    models = [write_model(tmp_path / "0", weights)]
    made = []
    for number in range(1, 4):
        weights = {NAME: nudge(weights[NAME], 0.1, number)}
        models.append(write_model(tmp_path / str(number), weights))
        made.append(tmp_path / f"{number}.patchc")
        patchc.diff(models[-2], models[-1], out=made[-1])
    return made


def test_a_whole_chain_is_applied_and_told(patches: list[Path]) -> None:
    report = patchc.chain(patches)
    assert report.whole
    assert [link.follows for link in report.links] == [None, True, True]
    assert [link.patch for link in report.links] == [patchc.inspect(path) for path in patches]
    digests = [link.patch.result_digest for link in report.links]
    assert len(set(digests)) == 3


def test_a_chain_with_a_link_missing_or_out_of_order(patches: list[Path]) -> None:
    first, second, third = patches
    for order, follows in (
        ((first, third), [None, False]),
        ((second, first, third), [None, False, False]),
        ((second, third, first), [None, True, False]),
    ):
        report = patchc.chain(order)
        assert not report.whole
        assert [link.follows for link in report.links] == follows


def test_what_follows_an_additive_patch_is_unknown(patches: list[Path], tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path / "inputs")
    additive, exact = tmp_path / "additive.patchc", patches[0]
    patchc.build(**paths, out=additive, values="additive")
    report = patchc.chain([additive, exact])
    assert [link.follows for link in report.links] == [None, None]
    assert report.whole is None
    assert patchc.chain([additive, exact, patches[2]]).whole is False
    assert patchc.chain([additive]).whole is True
    shown = CliRunner().invoke(app, ["inspect", str(additive), str(exact)])
    assert shown.exit_code == 0
    for text in ("not promised", "unknown: the patch before it is additive", "chain: unknown"):
        assert text in shown.output
    assert "None" not in shown.output
    assert "DOES NOT" not in shown.output


def test_the_command_shows_the_chain(patches: list[Path]) -> None:
    words = ["inspect", *map(str, patches)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "chain: whole" in shown.output
    content = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert content["whole"] is True
    assert content["links"][1]["patch"]["base_digest"] == patchc.inspect(patches[0]).result_digest
    broken = CliRunner().invoke(app, ["inspect", str(patches[0]), str(patches[2])])
    assert broken.exit_code == 13
    title, first, second = broken.stdout.splitlines()
    assert title == "chain: broken"
    assert first.split() == ["1.", str(patches[0]), "the", "first"]
    assert second.split() == ["2.", str(patches[2]), "DOES", "NOT", "FOLLOW"]
    reports = [patchc.inspect(path) for path in patches]
    assert broken.stderr == (
        f"patchc: error: {patches[2]} does not follow {patches[0]}: its base is "
        f"{reports[2].base_digest}, and the other's result is {reports[0].result_digest}; name "
        "the patches in the order of their chain\n"
    )


def test_a_broken_chain_is_told_as_json_too(patches: list[Path]) -> None:
    order = [patches[1], patches[0], patches[2], patches[1]]
    broken = CliRunner().invoke(app, ["inspect", *map(str, order), "--json"])
    assert broken.exit_code == 13
    content = json.loads(broken.stdout)
    assert content["whole"] is False
    assert [link["follows"] for link in content["links"]] == [None, False, False, False]
    assert f"{patches[0]} does not follow {patches[1]}" in broken.stderr
    assert "(the first of 3 breaks)" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1


def test_a_patch_with_other_chunks_may_follow_all_the_same(
    patches: list[Path], tmp_path: Path
) -> None:
    """Its digests of the models are others, so that they cannot be compared."""
    second = tmp_path / "chunks.patchc"
    patchc.diff(tmp_path / "1", tmp_path / "2", out=second, chunk_bits=12)
    report = patchc.chain([patches[0], second])
    assert (report.links[1].follows, report.whole, report.breaks()) == (None, None, ())
    result = CliRunner().invoke(app, ["inspect", str(patches[0]), str(second)])
    assert result.exit_code == 0
    assert "chain: unknown" in result.output
