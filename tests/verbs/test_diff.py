"""Lossless patches from two checkpoints: every word that differs, of any dtype."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import selection_oracle as oracle
from build_inputs import read_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import PatchedModel, Raw, normal, nudge, tree, write_file, write_model

import patchc
from patchc.compiler.steps import Codec
from patchc.dtypes import BY_NAME
from patchc.errors import MismatchError, OutputError, UnsupportedInputError, UsageError

BASE = {"a.weight": normal((4, 6), "BF16", 1), "b.weight": normal((24,), "F32", 2)}


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("dtype", BY_NAME)
def test_steps_equal_the_oracle(tmp_path: Path, dtype: str, codec: Codec) -> None:
    """Random bytes: NaN payloads, infinities, both zeros and wrapping integers among them."""
    kind = BY_NAME[dtype]
    rng = np.random.default_rng(kind.code)
    before = np.frombuffer(bytearray(rng.bytes(9000 * kind.word_bytes)), kind.word)
    after = np.frombuffer(bytearray(rng.bytes(9000 * kind.word_bytes)), kind.word)
    after = np.where(rng.random(9000) < 0.9, before, after)
    count = 9000 * kind.word_bits // kind.bits
    base, tuned = (Raw(dtype, (2, count // 2), words.tobytes()) for words in (before, after))
    write_model(tmp_path / "base", {"t": base})
    write_model(tmp_path / "tuned", {"t": tuned})
    out = tmp_path / "update.patchc"
    paths = tmp_path / "base", tmp_path / "tuned"
    report = patchc.diff(*paths, out=out, chunk_bits=12, codec=codec)
    is_float = dtype in ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
    expected = oracle.steps(before, after, is_float)
    assert read_steps(out, {"t": base})["t"] == expected
    assert report.entries == len(expected) > 500
    assert report.words == 9000
    assert report.size == out.stat().st_size


@settings(max_examples=30)
@given(
    size=st.sampled_from([0, 1, 7, 4095, 4096, 4097, 12289]),
    share=st.sampled_from([0.0, 1e-3, 0.1, 0.6, 1.0]),
    dtype=st.sampled_from(["BF16", "F32", "I32", "U8"]),
    seed=st.integers(0, 1000),
    chunk_bits=st.sampled_from([12, 14, 22]),
)
def test_any_density_comes_back(
    size: int, share: float, dtype: str, seed: int, chunk_bits: int
) -> None:
    base = normal((size,), dtype, seed)
    tuned = nudge(base, share, seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [write_file(root / n, {"t": v}) for n, v in (("base", base), ("tuned", tuned))]
        patchc.diff(*files, out=root / "update.patchc", chunk_bits=chunk_bits)
        patchc.apply(root / "update.patchc", files[0], out=root / "out")
        assert (root / "out").read_bytes() == files[1].read_bytes()


def test_equal_models_give_an_empty_patch(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", BASE)
    same = write_model(tmp_path / "same", BASE, shards=2)
    out = tmp_path / "update.patchc"
    report = patchc.diff(base, same, out=out, weights_only=True)
    assert report.entries == 0
    assert report.base_digest == report.result_digest
    patchc.apply(out, base, out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(base)


def test_one_file_for_threads_and_layouts(tmp_path: Path, patched: PatchedModel) -> None:
    files = {patched.patch.read_bytes()}
    for shards, threads in ((1, 1), (3, 7)):
        base = write_model(tmp_path / f"base{shards}", patched.base_tensors, shards)
        tuned = write_model(tmp_path / f"tuned{shards}", patched.tuned_tensors, 4 - shards)
        out = tmp_path / f"{shards}.patchc"
        patchc.diff(base, tuned, out=out, weights_only=True, threads=threads, chunk_bits=12)
        files.add(out.read_bytes())
    assert len(files) == 1


def test_progress_reaches_the_end(tmp_path: Path, patched: PatchedModel) -> None:
    events = []
    patchc.diff(patched.base, patched.tuned, out=tmp_path / "u.patchc", progress=events.append)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].total == 6 * 5000
    assert {event.stage for event in events} == {"diff"}


def test_quantised_checkpoints_and_adapters_are_taken_as_they_are(tmp_path: Path) -> None:
    config = {"config.json": json.dumps({"quantization_config": {"quant_method": "gptq"}})}
    tensors: dict[str, Any] = {"layers.0.qweight": np.arange(40, dtype=np.int32)}
    base = write_model(tmp_path / "base", tensors, side_files=config)
    tensors["layers.0.qweight"] = tensors["layers.0.qweight"] * 3
    tuned = write_model(tmp_path / "tuned", tensors, side_files=config)
    assert patchc.diff(base, tuned, out=tmp_path / "q.patchc").entries == 39
    adapter = write_file(
        tmp_path / "adapter_model.safetensors", {"x.lora_A.weight": BASE["a.weight"]}
    )
    assert patchc.diff(adapter, adapter, out=tmp_path / "a.patchc").entries == 0


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ({"a.weight": BASE["a.weight"]}, r"'b\.weight' of \S+base is missing from \S+tuned"),
        (BASE | {"c": BASE["a.weight"]}, r"'c' of \S+tuned is missing from \S+base"),
        (BASE | {"a.weight": normal((6, 4), "BF16", 1)}, r"\[4, 6\].*\[6, 4\]"),
        (BASE | {"a.weight": normal((4, 6), "F16", 1)}, r"BF16 .*F16 "),
    ],
    ids=["missing", "extra", "reshaped", "another dtype"],
)
def test_models_that_do_not_fit(tmp_path: Path, tuned: dict[str, Any], message: str) -> None:
    paths = write_model(tmp_path / "base", BASE), write_model(tmp_path / "tuned", tuned)
    with pytest.raises(MismatchError, match=message):
        patchc.diff(*paths, out=tmp_path / "update.patchc", weights_only=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tuned"]


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "tab\there", "nul\0", "x" * 5000])
def test_names_that_a_reader_would_refuse(tmp_path: Path, name: str) -> None:
    base = write_model(tmp_path / "base", BASE | {name: BASE["a.weight"]})
    with pytest.raises(UnsupportedInputError, match="rename it"):
        patchc.diff(base, base, out=tmp_path / "update.patchc")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize(
    "out",
    ["base", "tuned/update.patchc", "", "taken", "empty", "broken", "taken/a/b", "broken/a/b"],
)
def test_an_unusable_output_is_refused(tmp_path: Path, out: str) -> None:
    paths = [write_model(tmp_path / part, BASE) for part in ("base", "tuned")]
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    before = tree(tmp_path)
    with pytest.raises(OutputError):
        patchc.diff(*paths, out=tmp_path / out)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("chunk_bits", [-1, 11, 23])
def test_chunk_bits_out_of_range(tmp_path: Path, chunk_bits: int) -> None:
    base = write_model(tmp_path / "base", BASE)
    with pytest.raises(UsageError, match="chunk_bits"):
        patchc.diff(base, base, out=tmp_path / "update.patchc", chunk_bits=chunk_bits)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_folders_above_the_output_are_made(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", BASE)
    out = tmp_path / "new" / "deep" / "update.patchc"
    patchc.diff(base, base, out=out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
