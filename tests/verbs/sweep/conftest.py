"""Fixtures of the tests beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sweep_inputs import FILES
from tiny_llama import write_base, write_data

import patchc
from patchc import DeriveOptions
from patchc.derivation.derive_options import TuneOptions


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    base = write_base(folder / "base")
    steps = TuneOptions(learning_rate=3e-3, steps=4, batch_size=3)
    options = DeriveOptions(
        se=steps, osm=steps, score_samples=3, device="cpu", scores=("weight", "delta")
    )
    patchc.derive(base, write_data(folder / "data.jsonl"), folder, options=options)
    return {"base": base, "se": folder / "se", "osm": folder / "osm"}


@pytest.fixture(scope="session")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("requests")
    for name, prompts in FILES.items():
        answers = {"answers": ["ash"]} if name == "utility" else {}
        lines = [json.dumps({"prompt": prompt, **answers}) for prompt in prompts]
        (folder / name).with_suffix(".jsonl").write_text("\n".join(lines))
    return {name: folder / f"{name}.jsonl" for name in FILES}
