"""Consecutive patches folded into one: the same bytes as the patches one after the other."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from forged_patch import Parts, parts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_chains import UP, Chain, chain_of, refuse, with_any_codec
from second_reader import read_index
from tiny_checkpoints import Raw, normal, nudge, tree

import patchc
from patchc import DiffReport
from patchc.compiler.steps import Codec
from patchc.dtypes import BY_NAME
from patchc.errors import (
    UsageError,
)


def difference(before: Path, after: Path, out: Path, with_base: bool) -> DiffReport:
    """What a fold is compared with: coded as it is, given the base or not."""
    return patchc.diff(before, after, out=out, chunk_bits=12, codec="auto" if with_base else "rice")


def content(patch: Path) -> Parts:
    """Everything in a patch file but its provenance."""
    return parts_of(patch.read_bytes()).but(metadata=b"")


def check_both_ways(patch: Path, before: Path, after: Path, folder: Path) -> None:
    patchc.apply(patch, before, out=folder / "applied")
    assert tree(folder / "applied") == tree(after)
    patchc.revert(patch, after, out=folder / "reverted")
    assert tree(folder / "reverted") == tree(before)


@with_any_codec
def test_fold_is_the_difference_of_its_ends(tmp_path: Path, chain: Chain, with_base: bool) -> None:
    """`diff` of the first and the last model never sees what lies between."""
    base = chain.models[0] if with_base else None
    out, direct = tmp_path / "all.patchc", tmp_path / "direct.patchc"
    report = patchc.fold(chain.patches, out=out, base=base, threads=3)
    expected = difference(chain.models[0], chain.models[-1], direct, with_base)
    assert content(out) == content(direct)
    assert (report.entries, report.words) == (expected.entries, expected.words)
    assert report.size == out.stat().st_size
    assert (report.base_digest, report.result_digest) == (
        expected.base_digest,
        expected.result_digest,
    )
    assert patchc.verify(out).root == report.root
    check_both_ways(out, chain.models[0], chain.models[-1], tmp_path)


def test_fold_equals_its_patches_in_turn(tmp_path: Path, chain: Chain) -> None:
    model = chain.models[0]
    for i, patch in enumerate(chain.patches[:2]):
        patchc.apply(patch, model, out=tmp_path / f"turn{i}")
        model = tmp_path / f"turn{i}"
    patchc.fold(chain.patches[:2], out=tmp_path / "two.patchc")
    check_both_ways(tmp_path / "two.patchc", chain.models[0], model, tmp_path)


@with_any_codec
def test_folding_is_associative(tmp_path: Path, chain: Chain, with_base: bool) -> None:
    """The files are the same to the last byte, provenance included."""
    first, second, third = chain.patches
    bases = chain.models if with_base else [None] * 4
    left, right = tmp_path / "left.patchc", tmp_path / "right.patchc"
    for ends, out, start in (
        ((first, second), left, 0),
        ((left, third), tmp_path / "a.patchc", 0),
        ((second, third), right, 1),
        ((first, right), tmp_path / "b.patchc", 0),
        ((first, second, third), tmp_path / "c.patchc", 0),
    ):
        patchc.fold(ends, out=out, base=bases[start])
    made = {(tmp_path / f"{name}.patchc").read_bytes() for name in "abc"}
    assert len(made) == 1


def test_one_file_for_any_number_of_threads(tmp_path: Path, chain: Chain) -> None:
    for threads in (1, 5):
        patchc.fold(chain.patches, out=tmp_path / f"{threads}.patchc", threads=threads)
    assert (tmp_path / "1.patchc").read_bytes() == (tmp_path / "5.patchc").read_bytes()


@settings(max_examples=25)
@given(
    dtype=st.sampled_from(["BF16", "F32", "I8", "U8", "F8_E5M2", "I64", "F4"]),
    words=st.sampled_from([1, 7, 4096, 4097, 9000]),
    shares=st.lists(st.sampled_from([0.0, 1e-3, 0.3, 1.0]), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    codec=st.sampled_from(["auto", "rice"]),
)
def test_patches_of_any_words_fold(
    dtype: str, words: int, shares: list[float], seed: int, codec: Codec
) -> None:
    """Random bits wrap around; values from a set of three come back to what they were."""
    kind = BY_NAME[dtype]
    rng = np.random.default_rng(seed)
    few = np.frombuffer(rng.bytes(3 * kind.word_bytes), kind.word)
    arrays = [few[rng.integers(3, size=words)]]
    for share in shares:
        changed = np.where(rng.random(words) < share, few[rng.integers(3, size=words)], arrays[-1])
        arrays.append(changed.astype(kind.word))
    count = words * kind.word_bits // kind.bits
    states: list[dict[str, Any]] = [{"t": Raw(dtype, (count,), a.tobytes())} for a in arrays]
    with tempfile.TemporaryDirectory() as folder:
        made = chain_of(Path(folder), states, codec)
        direct, out = Path(folder, "direct.patchc"), Path(folder, "out.patchc")
        difference(made.models[0], made.models[-1], direct, with_base=True)
        patchc.fold(made.patches, out=out, base=made.models[0])
        assert content(out) == content(direct)
        if codec == "auto":
            return
        out.unlink()
        direct.unlink()
        difference(made.models[0], made.models[-1], direct, with_base=False)
        try:
            patchc.fold(made.patches, out=out)
        except UsageError:
            whole = read_index(parts_of(made.patches[0].read_bytes()).index)
            assert not whole.tensor_digests
            assert read_index(content(direct).index).tensor_digests
        else:
            assert content(out) == content(direct)


def test_a_patch_and_its_inverse_cancel(tmp_path: Path, chain: Chain) -> None:
    """Every chunk of one tensor ends as it began: only the base knows that tensor's digest."""
    back = tmp_path / "back.patchc"
    difference(chain.models[1], chain.models[0], back, with_base=False)
    pair, out = (chain.patches[0], back), tmp_path / "none.patchc"
    with pytest.raises(UsageError, match=rf"'{UP}'.*--base"):
        patchc.fold(pair, out=out)
    assert not out.exists()
    report = patchc.fold(pair, out=out, base=chain.models[0])
    assert report.entries == 0
    assert report.base_digest == report.result_digest
    patchc.apply(out, chain.models[0], out=tmp_path / "applied")
    assert tree(tmp_path / "applied") == tree(chain.models[0])


def test_a_chunk_that_cancels_where_the_tensor_is_pinned(tmp_path: Path) -> None:
    base = normal((3, 4096), "BF16", 1)
    middle = base.copy()
    middle[1] = nudge(middle[1], 0.1, 2)
    end = base.copy()
    end[2] = nudge(end[2], 0.1, 3)
    made = chain_of(tmp_path, [{"t": base}, {"t": middle}, {"t": end}])
    out, direct = tmp_path / "fold.patchc", tmp_path / "direct.patchc"
    patchc.fold(made.patches, out=out)
    difference(made.models[0], made.models[2], direct, with_base=False)
    assert content(out) == content(direct)


def test_the_chain_is_in_the_file_and_shown(tmp_path: Path, chain: Chain) -> None:
    out = tmp_path / "all.patchc"
    patchc.fold(chain.patches, out=out)
    report, parts = patchc.inspect(out), [patchc.inspect(patch) for patch in chain.patches]
    expected = tuple({"root": one.root, "result": one.result_digest} for one in parts)
    assert report.folded == expected
    assert report.metadata["kind"] == "fold"
    assert parts[0].folded == ()
    shown = run("inspect", out)[1]
    for number, one in enumerate(parts, start=1):
        assert f"folded {number}" in shown
        assert f"{one.root} to {one.result_digest}" in shown


@pytest.mark.parametrize(
    "folded",
    ["x", [1], [{"root": "0" * 64}], [{"root": "0" * 64, "result": 5}],
     [{"root": "\x1b" * 64, "result": "0" * 64}], [{"root": "0" * 64, "result": "0" * 63}]],
)  # fmt: skip
def test_hostile_provenance_is_passed_over(tmp_path: Path, chain: Chain, folded: object) -> None:
    patch = chain.patches[0]
    text = json.dumps({"kind": "fold", "folded": folded}).encode()
    patch.write_bytes(parts_of(patch.read_bytes()).but(metadata=text).assemble())
    report = patchc.inspect(patch)
    assert report.folded == ()
    out = tmp_path / "out.patchc"
    patchc.fold(chain.patches, out=out)
    assert patchc.inspect(out).folded[0]["root"] == report.root


def test_the_command_folds_and_tells(tmp_path: Path, chain: Chain) -> None:
    out = tmp_path / "new" / "all.patchc"
    code, text, err = run("fold", *chain.patches, "-o", out)
    assert (code, err) == (0, "")
    assert "3 patches" in text
    assert patchc.inspect(out).root in text
    out.unlink()
    code, text, _ = run("fold", *chain.patches, "-o", out, "--base", chain.models[0], "--json")
    assert code == 0
    assert json.loads(text)["root"] == patchc.inspect(out).root
    assert run("fold", chain.patches[0], "-o", tmp_path / "one.patchc")[0] == UsageError.exit_code


@with_any_codec
def test_progress_reaches_the_end(tmp_path: Path, chain: Chain, with_base: bool) -> None:
    events: list[Any] = []
    base = chain.models[0] if with_base else None
    patchc.fold(chain.patches, out=tmp_path / "o", base=base, progress=events.append)
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].total == (90 * 100 + 3 * 4096 + 7 if with_base else 5)
    assert {event.stage for event in events} == {"fold"}


@pytest.mark.parametrize("chain", ["auto"], indirect=True)
def test_the_base_is_asked_for_where_it_is_needed(tmp_path: Path, chain: Chain) -> None:
    refuse(tmp_path, chain.patches, UsageError, r"0-1.patchc is coded given .* with --base")
