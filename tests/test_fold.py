"""Consecutive patches folded into one: the same bytes as the patches one after the other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import small_inputs
from command_line import run
from forged_patch import Parts, parts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from second_reader import read_index
from tiny_checkpoints import Raw, normal, nudge, tree, write_model

import patchc
from patchc.compiler.pipeline import CompiledPatch
from patchc.compiler.steps import Codec
from patchc.dtypes import BY_NAME
from patchc.errors import (
    MismatchError,
    OutputError,
    PatchcError,
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)

UP, NORM, STILL = "layers.0.up.weight", "norm.weight", "still.weight"


@dataclass(frozen=True)
class Chain:
    """Models made in turn, and the patches between them."""

    models: list[Path]
    patches: list[Path]


def chain_of(folder: Path, states: list[dict[str, Any]], codec: Codec = "rice") -> Chain:
    models = [write_model(folder / str(i), state) for i, state in enumerate(states)]
    patches = []
    for i, (before, after) in enumerate(pairwise(models)):
        patches.append(folder / f"{i}-{i + 1}.patchc")
        patchc.diff(before, after, out=patches[-1], chunk_bits=12, codec=codec)
    return Chain(models, patches)


@pytest.fixture(params=["rice"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Chain:
    """Three patches: over all chunks of one tensor, over one chunk of the other at a time."""
    states: list[dict[str, Any]] = [
        {
            UP: normal((90, 100), "BF16", 1),
            NORM: normal((3, 4096), "F32", 2),
            STILL: normal((7,), "F16", 3),
        }
    ]
    for i in range(3):
        state = dict(states[-1])
        state[UP] = nudge(state[UP], 0.1, i)
        state[NORM] = state[NORM].copy()
        state[NORM][i % 2] = nudge(state[NORM][i % 2], 0.02, 50 + i)
        states.append(state)
    return chain_of(tmp_path, states, request.param)


def with_any_codec(test: Callable[..., None]) -> Callable[..., None]:
    """With the base, patches fold whatever their codec; without it, where they decode alone."""
    cases = [("rice", False), ("rice", True), ("auto", True)]
    return pytest.mark.parametrize(("chain", "with_base"), cases, indirect=["chain"])(test)


def difference(before: Path, after: Path, out: Path, with_base: bool) -> CompiledPatch:
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
    assert patchc.verify(out).root == report.root.hex()
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
def test_any_words(dtype: str, words: int, shares: list[float], seed: int, codec: Codec) -> None:
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


# Provenance ------------------------------------------------------------------------------------


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


def test_the_command(tmp_path: Path, chain: Chain) -> None:
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


# Refusals --------------------------------------------------------------------------------------


def refuse(
    tmp_path: Path, patches: list[Path], error: type[PatchcError], message: str, **options: Any
) -> None:
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        patchc.fold(patches, out=tmp_path / "refused.patchc", **options)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("order", [(0, 2), (1, 0), (2, 1), (0, 0), (0, 1, 0)])
def test_patches_that_do_not_meet(tmp_path: Path, chain: Chain, order: tuple[int, ...]) -> None:
    patches = [chain.patches[i] for i in order]
    pair = rf"{patches[-1].name} does not follow \S*{patches[-2].name}: tensor '{UP}', chunk 0"
    refuse(tmp_path, patches, MismatchError, pair)
    refuse(tmp_path, patches, MismatchError, pair, base=chain.models[0])


def test_an_untouched_tensor_tells_patches_apart(tmp_path: Path, chain: Chain) -> None:
    states = [
        {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2),
         STILL: nudge(normal((7,), "F16", 3), share, 1)}
        for share in (1.0, 1.0)
    ]  # fmt: skip
    other = chain_of(tmp_path / "other", states)
    same = tmp_path / "same.patchc"
    patchc.diff(chain.models[0], chain.models[0], out=same, chunk_bits=12)
    message = f"follow .*tensor '{STILL}' has another digest"
    refuse(tmp_path, [same, *other.patches], MismatchError, message)


def test_models_that_only_their_digest_tells_apart(tmp_path: Path) -> None:
    """One patch changes a chunk that the next one does not touch."""
    base = normal((2, 4096), "BF16", 1)
    first, second = base.copy(), base.copy()
    first[0], second[1] = nudge(base[0], 0.1, 1), nudge(base[1], 0.1, 2)
    made = chain_of(tmp_path, [{"t": base}, {"t": first}])
    branch = chain_of(tmp_path / "branch", [{"t": base}, {"t": second}])
    message = "1.patchc does not follow .*the digests of the models differ"
    refuse(tmp_path, [*made.patches, *branch.patches], MismatchError, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": normal((7,), "F16", 3)}, "it has tensor 'x'"),
        ({STILL: normal((7, 1), "F16", 3)}, rf"tensor '{STILL}' is F16 \[7, 1\], and F16 \[7\]"),
        ({STILL: normal((7,), "BF16", 3)}, rf"tensor '{STILL}' is BF16 \[7\], and F16 \[7\]"),
        (None, rf"it does not have tensor '{STILL}'"),
    ],
)
def test_other_tensors(
    tmp_path: Path, chain: Chain, change: dict[str, Any] | None, message: str
) -> None:
    state = {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2)}
    if change is not None:
        state |= {STILL: normal((7,), "F16", 3)} | change
    other = chain_of(tmp_path / "other", [state, state])
    refuse(tmp_path, [chain.patches[0], *other.patches], MismatchError, message)


def test_other_grids(tmp_path: Path, chain: Chain) -> None:
    other = tmp_path / "other.patchc"
    patchc.diff(chain.models[1], chain.models[2], out=other, chunk_bits=13)
    refuse(tmp_path, [chain.patches[0], other], MismatchError, "chunks of 8192 words .* 4096")


def test_patches_that_add_a_tensor_are_refused_by_name(tmp_path: Path, chain: Chain) -> None:
    state = {UP: normal((90, 100), "BF16", 1)}
    before = write_model(tmp_path / "before", state)
    after = write_model(tmp_path / "after", state | {NORM: normal((4,), "F32", 2)})
    grown = tmp_path / "grown.patchc"
    patchc.diff(before, after, out=grown)
    for pair in ([grown, chain.patches[0]], [chain.patches[0], grown]):
        refuse(tmp_path, pair, UnsupportedInputError, "grown.patchc has the feature update")


def test_additive_patches_are_refused_by_name(tmp_path: Path, chain: Chain) -> None:
    additive = tmp_path / "additive.patchc"
    patchc.build(**small_inputs().write(tmp_path / "inputs"), out=additive, values="additive")
    for pair in ([additive, chain.patches[0]], [chain.patches[0], additive]):
        refuse(tmp_path, pair, UnsupportedInputError, "additive.patchc has the feature additive")


def test_a_base_that_is_another_model(tmp_path: Path, chain: Chain) -> None:
    message = f"0-1.patchc was made for: tensor '{UP}': its chunk 0"
    refuse(tmp_path, chain.patches, WrongBaseError, message, base=chain.models[1])
    state = {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2)}
    untouched = write_model(tmp_path / "untouched", state | {STILL: np.zeros(7, np.float16)})
    message = f"tensor '{STILL}': its values differ"
    refuse(tmp_path, chain.patches, WrongBaseError, message, base=untouched)
    fewer = write_model(tmp_path / "fewer", state)
    refuse(tmp_path, chain.patches, WrongBaseError, f"tensor '{STILL}'", base=fewer)


def test_outputs_that_are_refused(chain: Chain) -> None:
    for out in (chain.patches[1], chain.models[0] / "x.patchc", chain.models[0]):
        with pytest.raises(OutputError):
            patchc.fold(chain.patches, out=out, base=chain.models[0])
    assert not (chain.models[0] / "x.patchc").exists()


def test_a_damaged_body(tmp_path: Path, chain: Chain) -> None:
    second = chain.patches[1]
    data = bytearray(second.read_bytes())
    data[16] ^= 1
    second.write_bytes(data)
    message = f"1-2.patchc: tensor '{UP}', chunk 0"
    refuse(tmp_path, chain.patches, PatchFormatError, message)
    refuse(tmp_path, chain.patches, PatchFormatError, message, base=chain.models[0])


def swap_digests(patch: Path, **columns: Any) -> None:
    parts = parts_of(patch.read_bytes())
    patch.write_bytes(parts.with_columns(**columns).assemble())


@with_any_codec
def test_bodies_replaced_under_their_short_digests(
    tmp_path: Path, chain: Chain, with_base: bool
) -> None:
    """The digest over all bodies is another: only reading all of them shows it."""
    swap_digests(chain.patches[2], bodies_digest=bytes(32))
    base = chain.models[0] if with_base else None
    message = "2-3.patchc: the digest over all chunk bodies"
    refuse(tmp_path, chain.patches, PatchFormatError, message, base=base)


def test_steps_that_contradict_their_digests(tmp_path: Path, chain: Chain) -> None:
    """Forged so that the chain's ends agree in one chunk, and the steps say otherwise."""
    first, last = (read_index(parts_of(p.read_bytes()).index) for p in chain.patches[::2])
    swap_digests(chain.patches[2], result_digests=[first.base_digests[0], *last.result_digests[1:]])
    message = "2-3.patchc: tensor 'layers.0.up.weight', chunk 0: the steps .* contradict"
    refuse(tmp_path, chain.patches, ResultMismatchError, message)
    message = "2-3.patchc: tensor 'layers.0.up.weight', chunk 0: the outcome"
    refuse(tmp_path, chain.patches, ResultMismatchError, message, base=chain.models[0])


@pytest.mark.parametrize("column", ["base_digest", "result_digest"])
def test_a_forged_model_digest(tmp_path: Path, chain: Chain, column: str) -> None:
    patch = chain.patches[0 if column == "base_digest" else 2]
    swap_digests(patch, **{column: bytes(32)})
    message = f"{patch.name}: every chunk matches and the model's digest does not"
    refuse(tmp_path, chain.patches, ResultMismatchError, message, base=chain.models[0])
    patchc.fold(chain.patches, out=tmp_path / "forged.patchc")
    with pytest.raises(ResultMismatchError):
        patchc.apply(tmp_path / "forged.patchc", chain.models[0], out=tmp_path / "out")
