"""Selections inside seeded retention masks, coded among the words that the masks keep."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import merge_oracle
import numpy as np
import pytest
import selection_oracle
from build_inputs import check_equal, expected_tensors, random_inputs, read_steps, words
from command_line import run
from forged_patch import parts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from second_reader import Index, read_index
from tiny_checkpoints import NUMPY, normal, raw, read_model, tree, write_model

import patchc
from patchc import MergeRecipe, Recipe
from patchc.dtypes import BY_NAME
from patchc.errors import PatchcError, PatchFormatError
from patchc.formats import PatchWriter, RetentionMask, TensorMasks, encode_chunk
from patchc.hashing import chunk_digest
from patchc.recipe.safepatching import Override
from patchc.selection.mask_table import tensor_masks
from patchc.verbs.inspect import MaskReport

ONE = "layers.0.weight"
SHAPES = st.lists(
    st.sampled_from([(1,), (3, 5), (64, 64), (4097,), (90, 101), (150, 90)]), min_size=1, max_size=3
)
FLOATS = st.sampled_from(["BF16", "F16", "F32"])


def masked_chunks(patch: Path) -> int:
    """How many chunks refer to masks."""
    with patchc.open_patch(patch) as opened:
        return int(np.count_nonzero(opened.index.chunk_masks))


@settings(max_examples=40)
@given(
    shapes=SHAPES,
    dtype=FLOATS,
    recipe=st.builds(
        Recipe,
        retain=st.floats(0, 1),
        top_se=st.sampled_from([0.05, 0.3, 1.0]),
        top_osm=st.sampled_from([0.05, 0.3, 1.0]),
        seed=st.integers(0, 2**64 - 1),
        rank_among=st.sampled_from(["retained", "all"]),
        sets=st.sampled_from(["difference", "intersection", "union", "se", "osm"]),
        overrides=st.sampled_from([(), (Override(match="1", retain=0.1),)]),
    ),
    threads=st.integers(1, 3),
    chunk_bits=st.sampled_from([12, 13, 20]),
    seed=st.integers(0, 1000),
)
def test_safepatching_there_and_back(
    shapes: list[tuple[int, ...]],
    dtype: str,
    recipe: Recipe,
    threads: int,
    chunk_bits: int,
    seed: int,
) -> None:
    if len(shapes) < 2:
        recipe = replace(recipe, overrides=())
    named = {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)}
    inputs = random_inputs(named, dtype, seed=seed)
    expected = expected_tensors(inputs, recipe)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, out = inputs.write(folder), folder / "fix.patchc"
        patchc.build(**paths, out=out, recipe=recipe, threads=threads, chunk_bits=chunk_bits)
        check_equal(inputs, recipe, out)
        patchc.apply(out, paths["base"], out=folder / "applied", threads=threads)
        found = read_model(folder / "applied")
        for tensor, base in inputs.base.items():
            assert found[tensor] == raw(expected[tensor].result.reshape(base.shape))
        patchc.revert(out, folder / "applied", out=folder / "reverted", threads=threads)
        assert tree(folder / "reverted") == tree(paths["base"])


@settings(max_examples=30)
@given(
    shapes=SHAPES,
    dtype=FLOATS,
    models=st.integers(1, 4),
    density=st.floats(0.02, 1),
    seed=st.integers(0, 2**64 - 1),
    threads=st.integers(1, 3),
    chunk_bits=st.sampled_from([12, 13, 20]),
)
def test_dare_there_and_back(
    shapes: list[tuple[int, ...]],
    dtype: str,
    models: int,
    density: float,
    seed: int,
    threads: int,
    chunk_bits: int,
) -> None:
    named = {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)}
    base, tuned = dare_models(named, models, dtype, seed % 1000)
    recipe = MergeRecipe("dare", density=density, seed=seed, rescale=False)
    merge = merge_oracle.Merge("dare", density, [1.0] * models, seed=seed)
    expected = merge_oracle.merge_models(base, tuned, merge, list(base))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = build_dare(folder, base, tuned, recipe, threads=threads, chunk_bits=chunk_bits)
        steps = {
            name: selection_oracle.steps(words(value), words(expected[name]), True)
            for name, value in base.items()
        }
        assert read_steps(out, base) == steps
        patchc.apply(out, folder / "base", out=folder / "applied", threads=threads)
        found = read_model(folder / "applied")
        for tensor, value in base.items():
            assert found[tensor] == raw(expected[tensor].reshape(value.shape))
        patchc.revert(out, folder / "applied", out=folder / "reverted", threads=threads)
        assert tree(folder / "reverted") == tree(folder / "base")


def dare_models(
    shapes: dict[str, tuple[int, ...]], models: int, dtype: str, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    base = {name: normal(shape, dtype, seed + i) for i, (name, shape) in enumerate(shapes.items())}
    tuned = [
        {
            name: (value.astype(np.float32) + rng.normal(scale=2e-3, size=value.shape))
            .astype(np.float32)
            .astype(NUMPY[dtype])
            for name, value in base.items()
        }
        for _ in range(models)
    ]
    return base, tuned


def build_dare(folder: Path, base: Any, tuned: Any, recipe: MergeRecipe, **how: Any) -> Path:
    paths = [write_model(folder / f"tuned-{i}", model) for i, model in enumerate(tuned)]
    out = folder / "merge.patchc"
    patchc.build(write_model(folder / "base", base), tuned=paths, out=out, recipe=recipe, **how)
    return out


# Sizes -----------------------------------------------------------------------------------------


def plain_size(folder: Path, patch: Path) -> tuple[int, int]:
    """Bytes of bodies and entries of the same changes coded without masks."""
    patchc.apply(patch, folder / "base", out=folder / "applied")
    plain = patchc.diff(
        folder / "base", folder / "applied", out=folder / "plain.patchc", weights_only=True
    )
    assert masked_chunks(folder / "plain.patchc") == 0
    return plain.body_bytes, plain.entries


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
def test_a_random_selection_is_near_its_bound(tmp_path: Path, share: float) -> None:
    """One mask at p 0.3: positions cost what they do among the words that it keeps."""
    inputs = random_inputs({ONE: (500, 400)})
    recipe = Recipe(retain=0.3, top_se=share * 0.3, sets="se", alpha=0.5, seed=11)
    out = tmp_path / "fix.patchc"
    built = patchc.build(**inputs.write(tmp_path), out=out, recipe=recipe, chunk_bits=18)
    assert built.entropy is not None
    assert built.body_bytes < 1.08 * built.entropy.total / 8 + 60
    plain, entries = plain_size(tmp_path, out)
    assert entries == built.entries > 1000
    assert 8 * (plain - built.body_bytes) / entries > 0.95 * np.log2(1 / 0.3)


@pytest.mark.parametrize(("models", "least"), [(1, 2.9), (2, 2.0), (3, 1.6), (4, 1.3)])
def test_dare_saves_about_what_its_masks_tell(tmp_path: Path, models: int, least: float) -> None:
    """At density 0.1: −log₂ of the share that any mask keeps, at the least."""
    base, tuned = dare_models({ONE: (500, 400)}, models, "BF16", 3)
    out = build_dare(tmp_path, base, tuned, MergeRecipe("dare", density=0.1, seed=2))
    with patchc.open_patch(out) as opened:
        found = int(opened.index.lengths.sum())
        assert [mask.component for mask in opened.index.masks] == [
            f"model-{i}" for i in range(models)
        ]
        assert opened.index.chunk_masks.tolist() == [2**models - 1]
    plain, entries = plain_size(tmp_path, out)
    assert least < -np.log2(1 - 0.9**models)
    assert 8 * (plain - found) / entries > least


def test_masks_are_used_only_where_that_is_shorter(tmp_path: Path) -> None:
    """Not in a tensor of four words, where a header for each group costs more than they save."""
    inputs = random_inputs({ONE: (100, 100), "layers.1.weight": (2, 2)})
    paths = inputs.write(tmp_path)
    out = tmp_path / "fix.patchc"
    patchc.build(**paths, out=out, recipe=Recipe(retain=0.3), chunk_bits=12)
    with patchc.open_patch(out) as opened:
        small = opened.index.tensors["layers.1.weight"]
        assert not any(opened.index.chunk(row).masks for row in small.chunks)
        assert masked_chunks(out) == len(opened.index.tensors[ONE].chunks)


@pytest.mark.parametrize("retain", [0.0, 1.0])
def test_masks_that_tell_nothing_are_left_out(tmp_path: Path, retain: float) -> None:
    inputs = random_inputs({ONE: (90, 101)})
    out = tmp_path / "fix.patchc"
    patchc.build(**inputs.write(tmp_path), out=out, recipe=Recipe(retain=retain))
    with patchc.open_patch(out) as opened:
        assert opened.index.masks == ()


def test_a_build_that_decodes_alone_has_none(tmp_path: Path) -> None:
    out = tmp_path / "fix.patchc"
    patchc.build(**random_inputs({ONE: (90, 101)}).write(tmp_path), out=out, codec="rice")
    with patchc.open_patch(out) as opened:
        assert opened.index.masks == ()
        assert opened.decodes_alone()


def test_more_masks_than_the_table_holds(tmp_path: Path) -> None:
    """Nine retention rates of two components: the last one's tensor goes without."""
    shapes = {f"layers.{i}.weight": (60, 80) for i in range(9)}
    inputs = random_inputs(shapes)
    overrides = tuple(Override(match=rf"\.{i}\.", retain=0.1 + i / 20) for i in range(9))
    recipe = Recipe(overrides=overrides)
    out = tmp_path / "fix.patchc"
    patchc.build(**inputs.write(tmp_path), out=out, recipe=recipe, chunk_bits=12)
    check_equal(inputs, recipe, out)
    with patchc.open_patch(out) as opened:
        assert len(opened.index.masks) == 16
        last = opened.index.tensors["layers.8.weight"]
        assert last.chunks
        assert not any(opened.index.chunk(row).masks for row in last.chunks)


def test_a_tensor_needs_room_for_all_of_its_masks() -> None:
    masks = [RetentionMask(f"model-{i}", 0, 1 << 31) for i in range(17)]
    assert tensor_masks({"a": masks, "b": masks[:2]}) == TensorMasks(tuple(masks[:2]), {"b": 3})


@pytest.mark.parametrize("dtype", ["BF16", "F32", "U8", "F4", "I64"])
def test_changes_outside_all_masks_are_coded_as_well(tmp_path: Path, dtype: str) -> None:
    """Of any dtype: a packed one has a draw for each of its words."""
    kind, rng = BY_NAME[dtype], np.random.default_rng(6)
    masks = TensorMasks((RetentionMask("se", 3, 1 << 30),), {"t": 1})
    groups = masks.draw("t", 0, 4096)
    assert groups is not None
    kept = selection_oracle.retained("se", "t", 3, 0.25, 0, 4096)
    np.testing.assert_array_equal(groups, kept)
    base = rng.integers(0, 256, 4096 * kind.word_bytes, np.uint8).view(kind.word)
    chosen = kept.copy()
    chosen[np.flatnonzero(~kept)[::500]] = True
    positions = np.flatnonzero(chosen).astype(np.uint32)
    steps = np.ones(len(positions), np.int64)
    digest = chunk_digest(base)
    chunk = encode_chunk(0, positions, steps, 4096, kind, digest, digest, base, 1, groups)
    assert chunk.record.masks == 1
    file = io.BytesIO()
    writer = PatchWriter(file, 1 << 12, masks=masks.table)
    writer.add_chunk(chunk)
    writer.end_tensor("t", kind, (4096 * kind.word_bits // kind.bits,), bytes(32))
    writer.finish({}, bytes(32), bytes(32))
    (tmp_path / "x.patchc").write_bytes(file.getvalue())
    with patchc.open_patch(tmp_path / "x.patchc") as opened:
        found = opened.read_changes(opened.index.tensors["t"], opened.index.chunk(0), base)
    np.testing.assert_array_equal(found[0], positions)
    np.testing.assert_array_equal(found[1], steps)


# Other commands --------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with a base, the patch of its build, and the patched model."""
    inputs = random_inputs({ONE: (90, 101), "layers.1.weight": (40, 50)})
    paths = inputs.write(tmp_path)
    recipe = Recipe(retain=0.3, seed=5)
    patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=recipe, chunk_bits=12)
    patchc.apply(tmp_path / "fix.patchc", tmp_path / "base", out=tmp_path / "fixed")
    assert masked_chunks(tmp_path / "fix.patchc") == 4
    return tmp_path


def test_verify_knows_both_sides(built: Path) -> None:
    for model, state in (("base", "base"), ("fixed", "patched")):
        report = patchc.verify(built / "fix.patchc", built / model)
        assert report.state == state


def test_fold_takes_a_patch_with_masks(built: Path) -> None:
    rng = np.random.default_rng(9)
    after = {}
    for name, tensor in read_model(built / "fixed").items():
        moved = np.frombuffer(tensor.data, np.uint16) + rng.integers(0, 2, 1, np.uint16)
        after[name] = replace(tensor, data=(moved + np.uint16(1)).tobytes())
    write_model(built / "next", after)
    patchc.diff(built / "fixed", built / "next", out=built / "on.patchc", chunk_bits=12)
    out = built / "both.patchc"
    patchc.fold([built / "fix.patchc", built / "on.patchc"], out=out, base=built / "base")
    patchc.apply(out, built / "base", out=built / "reached")
    assert read_model(built / "reached") == after


def test_inspect_shows_the_masks(built: Path) -> None:
    share = round(0.3 * 2**32) / 2**32
    report = patchc.inspect(built / "fix.patchc")
    assert report.masks == tuple(MaskReport(name, share, 5, 4) for name in ("se", "osm"))
    shown = " ".join(run("inspect", built / "fix.patchc")[1].split())
    assert "mask 0 se, keeps 0.3, seed 5, 4 chunks" in shown
    assert "mask 1 osm, keeps 0.3, seed 5, 4 chunks" in shown
    listed = json.loads(run("inspect", built / "fix.patchc", "--json")[1])["masks"]
    assert listed[0] == {"component": "se", "retain": share, "seed": 5, "chunks": 4}


# Hostile files ---------------------------------------------------------------------------------

Forge = Callable[[Index], dict[str, Any]]

REFERENCES: dict[str, tuple[Forge, str]] = {
    "beyond the table": (lambda i: {"mask_rows": [4, *i.mask_rows[1:]]}, "not in the index"),
    "far beyond": (lambda i: {"mask_rows": [1 << 15, *i.mask_rows[1:]]}, "not in the index"),
    "too wide": (lambda i: {"mask_rows": [1 << 16, *i.mask_rows[1:]]}, "width out of range"),
    "to a mask too few": (lambda i: {"masks": i.masks[:1]}, "not in the index"),
    "of rice": (lambda i: {"codecs": [1] * i.chunks}, "its codec takes none"),
    "of an unknown codec": (lambda i: {"codecs": [9] * i.chunks}, "its codec takes none"),
}

SWAPS: dict[str, Forge] = {
    "threshold": lambda i: {"masks": [(c, s, limit + (1 << 26)) for c, s, limit in i.masks]},
    "keeps none": lambda i: {"masks": [(c, s, 0) for c, s, _ in i.masks]},
    "keeps all": lambda i: {"masks": [(c, s, 1 << 32) for c, s, _ in i.masks]},
    "seed": lambda i: {"masks": [(c, s + 1, limit) for c, s, limit in i.masks]},
    "component": lambda i: {"masks": [(f"{c}2", s, limit) for c, s, limit in i.masks]},
    "masks swapped": lambda i: {"masks": i.masks[::-1]},
    "one mask": lambda i: {"mask_rows": [1] * i.chunks},
    "no mask": lambda i: {"mask_rows": [0] * i.chunks},
    "three masks": lambda i: {"masks": [*i.masks, i.masks[0]], "mask_rows": [7] * i.chunks},
}


def forge(patch: Path, how: Forge) -> None:
    parts = parts_of(patch.read_bytes())
    patch.write_bytes(parts.with_columns(**how(read_index(parts.index))).assemble())


@pytest.mark.parametrize("case", REFERENCES)
def test_references_to_masks_that_cannot_be_are_refused(built: Path, case: str) -> None:
    how, message = REFERENCES[case]
    forge(built / "fix.patchc", how)
    with pytest.raises(PatchFormatError, match=message):
        patchc.open_patch(built / "fix.patchc")


@pytest.mark.parametrize("case", SWAPS)
def test_other_masks_never_give_another_model(built: Path, case: str) -> None:
    """A forged root: the body does not decode, or the digest of the outcome is not the promised."""
    forge(built / "fix.patchc", SWAPS[case])
    with pytest.raises(PatchcError, match="layers"):
        patchc.apply(built / "fix.patchc", built / "base", out=built / "out")
    with pytest.raises(PatchcError, match="layers"):
        patchc.revert(built / "fix.patchc", built / "fixed", out=built / "out")
    assert not (built / "out").exists()
