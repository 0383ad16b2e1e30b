"""Which patches a model holds: alone, in chains, in part, with files, and additive ones."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from command_line import run
from patch_chains import NORM, STILL, UP, Chain, chain_of
from tiny_checkpoints import PatchedModel, normal, nudge, tree, write_model

import patchc
from patchc.errors import PatchFormatError, UsageError
from patchc.progress import ProgressEvent


def states(model: Path, *patches: Path, **more: Any) -> list[str]:
    return [one.state for one in patchc.status(model, patches, **more).patches]


@pytest.fixture(params=[2, 300], ids=["every second word", "a few words"])
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    """Three patches in turn; the second and third change no chunk of the norm."""
    weights = {name: normal((60, 100), "BF16", i) for i, name in enumerate((UP, NORM, STILL))}
    made = [weights]
    for number, names in enumerate([(UP, NORM), (UP,), (UP,)]):
        weights = dict(weights)
        for name in names:
            share = 1.0 / request.param
            weights[name] = nudge(weights[name], share, 10 * number)
        made.append(weights)
    return chain_of(tmp_path, made)


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_model_of_a_chain(chain: Chain, shuffled: bool) -> None:
    order = [2, 0, 1] if shuffled else [0, 1, 2]
    patches = [chain.patches[place] for place in order]
    for number, model in enumerate(chain.models):
        before = tree(model)
        report = patchc.status(model, patches)
        expected = ["patched"] * number + ["base", "before", "before"][: 3 - number]
        assert [one.state for one in report.patches] == [expected[place] for place in order]
        assert [one.path for one in report.patches] == patches
        assert not any(one.difference for one in report.patches)
        assert tree(model) == before


def test_the_patches_between_are_told(chain: Chain) -> None:
    first, second, third = chain.patches
    found = patchc.status(chain.models[3], chain.patches).patches
    assert [one.through for one in found] == [(second, third), (third,), ()]
    found = patchc.status(chain.models[0], chain.patches).patches
    assert [one.through for one in found] == [(), (first,), (second, first)]


def test_a_chain_with_a_gap_tells_nothing_of_what_is_beyond(chain: Chain) -> None:
    first, _, third = chain.patches
    report = patchc.status(chain.models[3], [first, third])
    assert [one.state for one in report.patches] == ["neither", "patched"]
    assert UP in report.patches[0].difference
    assert states(chain.models[0], first, third) == ["base", "neither"]


def test_a_chain_that_is_partly_on_its_last_patch(chain: Chain, tmp_path: Path) -> None:
    before, after = chain.models[1], chain.models[2]
    with patchc.open_patch(chain.patches[1]) as opened:
        assert len(opened.index.numbers) > 1
    mixed = _mixed(before, after, tmp_path / "mixed")
    assert states(mixed, *chain.patches) == ["patched", "partly patched", "before"]


def _mixed(before: Path, after: Path, out: Path) -> Path:
    """A model whose first chunk is that of one, and the rest that of another."""
    shutil.copytree(before, out)
    old = (before / "model.safetensors").read_bytes()
    new = (after / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(old[:8], "little")
    header = json.loads(old[8:start])
    first = start + header[UP]["data_offsets"][0]
    middle = first + 2 * 4096
    (out / "model.safetensors").write_bytes(old[:first] + new[first:middle] + old[middle:])
    return out


def test_partly_patched_and_neither(patched: PatchedModel, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    partly = dict(patched.base_tensors) | {name: patched.tuned_tensors[name]}
    model = write_model(tmp_path / "partly", partly)
    assert states(model, patched.patch) == ["partly patched"]
    for other in (name, "lm_head.weight"):
        torn = partly | {other: nudge(partly[other], 0.01, 3)}
        model = write_model(tmp_path / f"neither-{other}", torn)
        (found,) = patchc.status(model, [patched.patch]).patches
        assert found.state == "neither"
        assert repr(other) in found.difference
    renamed = {f"x.{one}": value for one, value in partly.items()}
    (found,) = patchc.status(write_model(tmp_path / "named", renamed), [patched.patch]).patches
    assert (found.state, "x.model" in found.difference) == ("neither", True)


def test_a_foreign_word_beside_patched_chunks_is_found(
    patched: PatchedModel, tmp_path: Path
) -> None:
    """Digests of chunks say that nothing is wrong there; the model is read once more."""
    name = "lm_head.weight"
    tensors = dict(patched.tuned_tensors)
    half = tensors["model.layers.0.mlp.up_proj.weight"]
    patch = tmp_path / "half.patchc"
    changed = half.copy().ravel()
    changed[:10] = nudge(changed[:10], 1.0, 4)
    result = tensors | {"model.layers.0.mlp.up_proj.weight": changed.reshape(half.shape)}
    patchc.diff(patched.tuned, write_model(tmp_path / "r", result), out=patch, chunk_bits=12)
    changed[4500] = nudge(changed[4500:4501], 1.0, 5)[0]
    foreign = tensors | {"model.layers.0.mlp.up_proj.weight": changed.reshape(half.shape)}
    (found,) = patchc.status(write_model(tmp_path / "f", foreign), [patch]).patches
    assert found.state == "neither"
    assert "up_proj" in found.difference
    assert name not in found.difference


def test_patches_with_chunks_of_several_sizes(patched: PatchedModel, tmp_path: Path) -> None:
    other = tmp_path / "other.patchc"
    patchc.diff(patched.base, patched.tuned, out=other, chunk_bits=14)
    events: list[ProgressEvent] = []
    for model, state in ((patched.base, "base"), (patched.tuned, "patched")):
        assert states(model, patched.patch, other, progress=events.append) == [state, state]
    last = events[-1]
    assert (last.done, last.total) == (120_000, 120_000)  # the model's bytes, twice
    assert states(patched.base, patched.patch, patched.patch, threads=1) == ["base", "base"]
    with pytest.raises(UsageError, match="max_memory"):
        states(patched.base, patched.patch, max_memory=1000)


def test_an_additive_patch_is_recognised_at_its_base_alone(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    additive, result = tmp_path / "additive.patchc", tmp_path / "result"
    patchc.build(**paths, out=additive, values="additive")
    patchc.apply(additive, paths["base"], out=result)
    assert states(paths["base"], additive) == ["base"]
    assert states(result, additive) == ["unknown"]


def test_files_count_too(tmp_path: Path) -> None:
    """Three versions of a file, twice with other weights; the last patch changes the file alone."""
    weights = {UP: normal((30, 10), "BF16", 1)}
    tuned = {UP: nudge(weights[UP], 0.5, 2)}
    models = [
        write_model(tmp_path / str(n), tensors, side_files={"config.json": f'{{"version": {n}}}'})
        for n, tensors in enumerate((weights, tuned, tuned, tuned))
    ]
    patches = []
    for before, after in pairwise(models):
        patches.append(tmp_path / f"{before.name}-{after.name}.patchc")
        patchc.diff(before, after, out=patches[-1])
    for number, model in enumerate(models):
        expected = ["patched"] * number + ["base", "before", "before"][: 3 - number]
        assert states(model, *patches) == expected
    (models[1] / "config.json").write_text("{}")
    report = patchc.status(models[1], patches)
    assert [one.state for one in report.patches] == ["patched", "neither", "neither"]
    assert [one.name for one in report.patches[0].side_files] == ["config.json"]
    assert "config.json" in report.patches[1].difference
    (models[1] / "config.json").write_text('{"version": 0}')
    report = patchc.status(models[1], patches)
    assert [one.state for one in report.patches] == ["patched", "neither", "neither"]
    assert [one.state for one in report.patches[0].side_files] == ["base"]
    text = run("status", models[1], *patches)[1]
    assert "patched; side files differ: 'config.json' (as in the base)" in text


def test_side_files_of_one_s_own_are_named(tmp_path: Path) -> None:
    weights = normal((30, 10), "BF16", 1)
    models = [
        write_model(tmp_path / n, {UP: words}, side_files={"README.md": n, "vocab.txt": n})
        for n, words in (("before", weights), ("after", nudge(weights, 0.5, 2)))
    ]
    patch = tmp_path / "fix.patchc"
    patchc.diff(*models, out=patch)
    for model, state in zip(models, ("base: it can be applied", "patched"), strict=True):
        (model / "README.md").write_text("mine")
        text = f"{state}; side files differ: 'README.md' (its content differs)"
        assert text in run("status", model, patch)[1]
        (model / "vocab.txt").unlink()
        assert "'vocab.txt' (missing)" in (text := run("status", model, patch)[1])
        assert ("with --keep-side-files; " in text) == (state != "patched")
        (found,) = patchc.status(model, patch).patches
        assert [(one.name, one.refused) for one in found.side_files] == [
            ("README.md", False), ("vocab.txt", True),
        ]  # fmt: skip


def test_a_patch_that_changes_nothing(patched: PatchedModel, tmp_path: Path) -> None:
    empty = tmp_path / "empty.patchc"
    patchc.diff(patched.base, patched.base, out=empty, chunk_bits=12)
    assert states(patched.base, empty, patched.patch) == ["base", "base"]
    assert states(patched.tuned, empty, patched.patch)[1] == "patched"


def test_tensors_that_only_one_side_has(tmp_path: Path) -> None:
    weights = {UP: normal((30, 10), "BF16", 1), NORM: normal((10,), "BF16", 2)}
    models = [write_model(tmp_path / "0", weights), write_model(tmp_path / "1", {UP: weights[UP]})]
    patch = tmp_path / "removes.patchc"
    patchc.diff(*models, out=patch)
    assert [states(model, patch) for model in models] == [["base"], ["patched"]]


def test_the_command(chain: Chain) -> None:
    code, out, err = run("status", chain.models[1], *chain.patches)
    assert (code, err) == (0, "")
    title, *lines = out.splitlines()
    assert title == f"status: {chain.models[1]} holds 1 of 3"
    for line, text in zip(lines, ("patched", "base: it can be applied", "not held: "), strict=True):
        assert text in line
    assert f"{chain.patches[1]} must be applied first" in lines[2]
    code, out, _ = run("status", chain.models[3], *chain.patches, "--json", "--threads", 1)
    content = json.loads(out)
    assert (code, content["model"]) == (0, str(chain.models[3]))
    assert [one["state"] for one in content["patches"]] == ["patched"] * 3
    assert [one["root"] for one in content["patches"]] == [
        patchc.inspect(path).root for path in chain.patches
    ]
    code, out, _ = run("status", chain.models[3], chain.patches[0], chain.patches[0])
    assert (code, out.count("neither its base nor patched: ")) == (0, 2)


def test_a_long_chain_names_a_few_patches_in_a_line(tmp_path: Path) -> None:
    weights = [{UP: normal((60, 100), "BF16", 0)}]
    for number in range(5):
        weights.append({UP: nudge(weights[-1][UP], 0.1, number)})
    chain = chain_of(tmp_path, weights)
    first, second, third, *_ = chain.patches
    code, out, _ = run("status", chain.models[0], *chain.patches)
    assert code == 0
    assert f"not held: {first}, {second}, {third} must be applied first" in out
    assert f"not held: {first}, {second} and 2 more must be applied first" in out
    code, out, _ = run("status", chain.models[5], *chain.patches)
    assert f"patched, and then with {second}, {third} and 2 more" in out


def test_what_cannot_be_read_is_an_error(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one patch"):
        patchc.status(chain.models[0], [])
    (tmp_path / "no.patchc").write_bytes(b"no patch")
    with pytest.raises(PatchFormatError, match=r"no\.patchc"):
        patchc.status(chain.models[0], [*chain.patches, tmp_path / "no.patchc"])
    assert run("status", tmp_path / "nowhere", chain.patches[0])[0] == 3
    assert run("status", chain.models[0])[0] == 2
