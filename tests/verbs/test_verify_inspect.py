"""What verify says about a patch and a model, and inspect about a patch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import PatchedModel, nudge, tree, write_model

import patchc
from patchc.errors import CheckpointError, PatchFormatError

LAYERS = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]


def _changed(patched: PatchedModel, name: str) -> int:
    before, after = patched.base_tensors[name], patched.tuned_tensors[name]
    return int(np.count_nonzero(before.view(np.uint16) != after.view(np.uint16)))


def test_a_patch_alone_is_verified_as_intact(patched: PatchedModel) -> None:
    report = patchc.verify(patched.patch)
    assert report.state == "intact"
    with patchc.open_patch(patched.patch) as opened:
        assert report.root == opened.root.hex()


def test_base_and_patched_models_are_told_apart(patched: PatchedModel) -> None:
    before = tree(patched.base), tree(patched.tuned)
    chunks = len(LAYERS) * 2  # 5000 words in chunks of 4096
    base = patchc.verify(patched.patch, patched.base, threads=2)
    assert (base.state, base.chunks_at_base, base.chunks_at_result) == ("base", chunks, 0)
    result = patchc.verify(patched.patch, patched.tuned, threads=2)
    assert (result.state, result.chunks_at_base, result.chunks_at_result) == ("patched", 0, chunks)
    assert base.difference == result.difference == ""
    assert (tree(patched.base), tree(patched.tuned)) == before


def test_partly_patched_by_tensor_and_by_chunk(tmp_path: Path, patched: PatchedModel) -> None:
    mixed = dict(patched.base_tensors)
    mixed[LAYERS[0]] = patched.tuned_tensors[LAYERS[0]]
    half = patched.base_tensors[LAYERS[1]].copy().ravel()
    half[4096:] = patched.tuned_tensors[LAYERS[1]].ravel()[4096:]
    mixed[LAYERS[1]] = half.reshape(50, 100)
    report = patchc.verify(patched.patch, write_model(tmp_path / "mixed", mixed))
    assert (report.state, report.chunks_at_base, report.chunks_at_result) == (
        "partly patched",
        5,
        3,
    )


@pytest.mark.parametrize("source", ["base", "tuned"])
@pytest.mark.parametrize("name", [*LAYERS, "lm_head.weight", "model.norm.weight"])
def test_neither_names_the_tensor(
    tmp_path: Path, patched: PatchedModel, name: str, source: str
) -> None:
    tensors = dict(getattr(patched, f"{source}_tensors"))
    tensors[name] = nudge(tensors[name], 0.001, 1)
    report = patchc.verify(patched.patch, write_model(tmp_path / "other", tensors))
    assert report.state == "neither"
    assert repr(name) in report.difference


def test_neither_where_the_tensors_are_others(tmp_path: Path, patched: PatchedModel) -> None:
    fewer = dict(patched.base_tensors)
    del fewer["lm_head.weight"]
    report = patchc.verify(patched.patch, write_model(tmp_path / "fewer", fewer))
    assert report.state == "neither"
    assert "'lm_head.weight'" in report.difference


def test_resharded_model_is_the_same_model(tmp_path: Path, patched: PatchedModel) -> None:
    reverse = dict(reversed(patched.base_tensors.items()))
    model = write_model(tmp_path / "resharded", reverse, shards=3)
    assert patchc.verify(patched.patch, model).state == "base"


def test_empty_patch_finds_its_base(tmp_path: Path, patched: PatchedModel) -> None:
    out = tmp_path / "empty.patchc"
    patchc.diff(patched.base, patched.base, out=out)
    assert patchc.verify(out, patched.base).state == "base"
    assert patchc.verify(out, patched.tuned).state == "neither"


def test_damaged_body_names_tensor_and_chunk(patched: PatchedModel) -> None:
    with patchc.open_patch(patched.patch) as opened:
        record = opened.index.tensors[LAYERS[2]]
        offset = opened.index.chunk(record.chunks[1]).offset
    content = bytearray(patched.patch.read_bytes())
    content[offset] ^= 1
    patched.patch.write_bytes(content)
    for model in (None, patched.base):
        with pytest.raises(PatchFormatError, match=f"{LAYERS[2]}.*chunk 1"):
            patchc.verify(patched.patch, model)


def test_missing_files_are_named(tmp_path: Path, patched: PatchedModel) -> None:
    with pytest.raises(PatchFormatError, match="nowhere"):
        patchc.verify(tmp_path / "nowhere")
    with pytest.raises(PatchFormatError, match="nowhere"):
        patchc.inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        patchc.verify(patched.patch, tmp_path / "nowhere")


def test_inspect_tells_sizes_and_counts(patched: PatchedModel) -> None:
    report = patchc.inspect(patched.patch)
    counts = [_changed(patched, name) for name in LAYERS]
    assert [part.name for part in report.tensors] == LAYERS
    assert [part.changed for part in report.tensors] == counts
    assert [part.name for part in report.layers] == [f"model.layers.{i}" for i in range(4)]
    assert [part.changed for part in report.layers] == counts
    assert [part.words for part in report.layers] == [5000] * 4
    assert report.total.changed == sum(counts)
    assert report.total.words == 30000
    assert report.total.density == sum(counts) / 30000
    assert report.total.bits_per_change == 8 * report.total.nbytes / sum(counts)
    assert report.total.nbytes == sum(part.nbytes for part in report.tensors)
    assert 0 < report.total.nbytes < report.size == patched.patch.stat().st_size
    assert report.model_bytes == 60000
    assert report.tensor_count == 6
    assert report.dtypes == dict.fromkeys(LAYERS, ("BF16", (50, 100)))
    assert report.metadata["kind"] == "diff"
    assert report.metadata["tool"]["version"] == patchc.__version__
    assert report.version == "2.0"


def test_inspect_groups_a_layer_and_orders_by_number(tmp_path: Path) -> None:
    names = ["h.10.a.weight", "h.2.b.weight", "h.2.a.weight", "embed.weight"]
    base = {name: np.zeros(10, np.float32) for name in names}
    tuned = {name: np.ones(10, np.float32) for name in names}
    out = tmp_path / "update.patchc"
    paths = [write_model(tmp_path / part, t) for part, t in (("base", base), ("tuned", tuned))]
    patchc.diff(*paths, out=out)
    layers = patchc.inspect(out).layers
    assert {part.name: part.changed for part in layers} == {
        "h.2": 20, "h.10": 10, "embed.weight": 10,
    }  # fmt: skip
    ordered = [part.name for part in layers]
    assert ordered.index("h.2") < ordered.index("h.10")


def test_inspect_of_an_empty_patch(tmp_path: Path, patched: PatchedModel) -> None:
    out = tmp_path / "empty.patchc"
    patchc.diff(patched.base, patched.base, out=out)
    report = patchc.inspect(out)
    assert (report.tensors, report.layers) == ((), ())
    assert (report.total.density, report.total.bits_per_change) == (0.0, 0.0)
