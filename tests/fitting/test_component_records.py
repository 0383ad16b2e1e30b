"""Derived components in a sweep and a fit, and the records that a derivation leaves of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from component_records import write_record
from fit_inputs import write_models, write_requests
from fit_runs import run
from tiny_llama import write_base, write_data

import patchc
from patchc import DeriveOptions
from patchc.derivation.derive_options import TuneOptions
from patchc.errors import MismatchError

TUNING = TuneOptions(learning_rate=1e-3, steps=1, batch_size=2)
PAIR = DeriveOptions(se=TUNING, osm=TUNING, score_samples=2, device="cpu", seed=6)


@pytest.mark.parametrize("options", [PAIR, replace(PAIR, retain=0.5)], ids=["whole", "compact"])
def test_a_derivation_records_its_base_and_its_directions(
    options: DeriveOptions, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base")
    patchc.derive(base, write_data(tmp_path / "data.jsonl"), tmp_path / "out", options=options)
    empty = tmp_path / "empty.patchc"
    patchc.diff(base, base, out=empty)
    for part in ("se", "osm"):
        record = json.loads((tmp_path / "out" / part / "derive.json").read_text())
        assert (record["direction"], record["base"]) == (part, "base")
        assert record["base_digest"] == patchc.inspect(empty).base_digest
    recipe = patchc.Recipe(retain=0.5, seed=6)
    parts = {"se": tmp_path / "out/se", "osm": tmp_path / "out/osm"}
    report = patchc.build(base, **parts, recipe=recipe, out=tmp_path / "1.patchc")
    assert report.notes == ()
    swapped = {"se": parts["osm"], "osm": parts["se"]}
    with pytest.raises(MismatchError, match="swap --se and --osm"):
        patchc.build(base, **swapped, recipe=recipe, out=tmp_path / "2.patchc")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    base = write_models(tmp_path)
    for part in ("se", "osm"):
        write_record(tmp_path / part, base, part)
    return tmp_path


def test_a_fit_refuses_swapped_components_and_another_base(models: Path) -> None:
    requests, out = write_requests(models), models / "fix.patchc"
    with pytest.raises(MismatchError, match="swap --se and --osm"):
        run(models, requests, out, se=models / "osm", osm=models / "se")
    # All that is read at once is that of the base; only the whole digest is another's.
    write_record(models / "osm", models / "base", "osm", base_digest="a" * 64)
    with pytest.raises(MismatchError, match="osm: this component was derived from another base"):
        run(models, requests, out)
    assert not list(models.glob("fix.*"))


def test_a_sweep_refuses_them_before_it_asks(models: Path) -> None:
    requests, out = write_requests(models), models / "trials.jsonl"
    given = {**requests, "out": out, "grid": {"alpha": [1.0]}}
    base, se, osm = (models / name for name in ("base", "se", "osm"))
    with pytest.raises(MismatchError, match="swap --se and --osm"):
        patchc.sweep(base, se=osm, osm=se, **given)
    write_record(se, base, "se", base_digest="a" * 64)
    with pytest.raises(MismatchError, match="se: this component was derived from another base"):
        patchc.sweep(base, se=se, osm=osm, **given)
    assert not out.exists()
