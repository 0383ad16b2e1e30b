"""Tensors that another model calls by other names: diffs and builds by rules, and their advice."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import check_equal, small_inputs
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_inputs import small_models, write_sources
from tiny_checkpoints import Raw, normal, nudge, read_model, tree, write_file, write_model
from update_strategies import tensors

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import MismatchError, UsageError

BASE = {f"model.layers.{i}.mlp.up.weight": normal((50, 300), "BF16", i) for i in range(4)}
BASE |= {"model.norm.weight": normal((300,), "BF16", 8), "lm_head.weight": normal((9,), "F32", 9)}
CHANGED = {name: nudge(value, 0.01, 7) for name, value in BASE.items()}


def _renamed(folder: Path, call: Callable[[str], str]) -> tuple[Path, Path]:
    """The base, and a changed model that calls its tensors otherwise, in other shards."""
    base = write_model(folder / "base", BASE, side_files={"config.json": "{}"})
    changed = {call(name): value for name, value in CHANGED.items()}
    return base, write_model(folder / "tuned", changed, shards=2)


def _there_and_back(folder: Path, patch: Path, base: Path, tuned: Path) -> None:
    patchc.apply(patch, base, out=folder / "applied")
    assert tree(folder / "applied") == tree(tuned)
    patchc.revert(patch, tuned, out=folder / "reverted")
    assert tree(folder / "reverted") == tree(base)


# diff ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "call"),
    [
        ("^=module.", lambda name: f"module.{name}"),
        ("^=_orig_mod.", lambda name: f"_orig_mod.{name}"),
        (
            r"^model\.=model.language_model.",
            lambda name: re.sub(r"^model\.", "model.language_model.", name),
        ),
        ("^=language_model.", lambda name: f"language_model.{name}"),
        (r"^model\.=", lambda name: name.removeprefix("model.")),
        (r"^model\.=transformer.", lambda name: re.sub("^model", "transformer", name)),
        (
            r"^model\.layers\.(\d+)\.=model.layers.\1._orig_mod.",
            lambda name: re.sub(r"(\d+)\.", r"\1._orig_mod.", name),
        ),
    ],
)
def test_a_renamed_and_changed_model_costs_its_changes_for_each_way(
    tmp_path: Path, rule: str, call: Callable[[str], str]
) -> None:
    base, tuned = _renamed(tmp_path, call)
    same = write_model(tmp_path / "same", CHANGED)
    plain = patchc.diff(base, same, out=tmp_path / "plain.patchc")
    whole = patchc.diff(base, tuned, out=tmp_path / "whole.patchc")
    assert whole.suggested_renames == (rule,)
    report = patchc.diff(base, tuned, out=tmp_path / "ruled.patchc", rename=rule)
    assert report.suggested_renames == plain.suggested_renames == ()
    assert report.entries <= 2 * plain.entries
    assert report.size < 2 * plain.size + 1500 < whole.size / 10
    _there_and_back(tmp_path, report.out, base, tuned)
    found = patchc.inspect(report.out)
    assert found.metadata["rename"] == [rule]
    assert found.update is not None
    assert found.update.added == found.update.removed == ()
    moved = {name: call(name) for name in BASE if call(name) != name}
    assert dict(found.update.renamed) == moved


TEMPLATES = ["^=w.", "^(.)=\\1.x", "a=b", "b=aa", "(.)$=\\1\\1", "^[ab]=c", "d\\.=", "c=h.c"]


@settings(max_examples=30)
@given(
    base=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d.e", "e", "f"]), tensors(), min_size=1, max_size=4
    ),
    rules=st.lists(st.sampled_from(TEMPLATES), min_size=1, max_size=3),
    data=st.data(),
)
def test_any_rules_there_and_back(base: dict[str, Raw], rules: list[str], data: Any) -> None:
    """Renamed tensors are nudged, kept, given other dtypes and sizes, or lost; others come."""
    names = {name: name for name in base}
    matched = []
    for rule in rules:
        old, _, new = rule.partition("=")
        matched.append([name for name, now in names.items() if re.search(old, now)])
        names = {name: re.sub(old, new, now, count=1) for name, now in names.items()}
    fits = all(matched) and len({*names.values()}) == len(names)
    tuned = data.draw(st.dictionaries(st.sampled_from("abcdh"), tensors(), max_size=2))
    for name, tensor in base.items():
        fate = data.draw(st.sampled_from(["nudge", "nudge", "keep", "new", "lost"]))
        if fate == "nudge":
            words = np.frombuffer(bytearray(tensor.data), np.uint8).copy()
            words[::7] ^= tensor.dtype != "BOOL"
            tuned[names[name]] = Raw(tensor.dtype, tensor.shape, words.tobytes())
        elif fate != "lost":
            tuned[names[name]] = tensor if fate == "keep" else data.draw(tensors())
    kinds = [{n: (one.dtype, one.shape) for n, one in model.items()} for model in (base, tuned)]
    moved = any(new != name and new in tuned for name, new in names.items())
    alike = moved and kinds[0] == kinds[1]
    leads = all(any(names[name] in tuned for name in one) for one in matched)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_model(root / "base", base), write_model(root / "tuned", tuned)
        given = {"out": root / "p.patchc", "rename": rules, "chunk_bits": 12}
        if fits and leads and not alike:
            patchc.diff(*paths, **given)
            _there_and_back(root, given["out"], *paths)
        else:
            told = "does not have it|leave the rules out" if fits else "matches no|both become"
            with pytest.raises(UsageError, match=told):
                patchc.diff(*paths, **given)
            assert not given["out"].exists()


def test_a_rule_goes_before_the_same_name_and_equal_bytes(tmp_path: Path) -> None:
    """Layers that move up by one: each has a name that another one had."""
    layers = [normal((9000,), "BF16", n) for n in range(3)]
    base = write_model(tmp_path / "base", {f"l.{n}.w": layers[n] for n in range(3)})
    moved = {f"l.{n + 1}.w": nudge(layers[n], 0.01, 5) for n in range(3)}
    tuned = write_model(tmp_path / "tuned", moved | {"l.0.w": normal((9001,), "F32", 9)})
    rules = [r"l\.0=l.x1", r"l\.1=l.2x", r"l\.2\.=l.3.", "x1=1", "2x=2"]
    report = patchc.diff(base, tuned, out=tmp_path / "p.patchc", rename=rules)
    assert report.entries < 9001 + 2 * 3 * 120
    _there_and_back(tmp_path, report.out, base, tuned)
    found = patchc.inspect(report.out).update
    assert found is not None
    assert found.renamed == tuple((f"l.{n}.w", f"l.{n + 1}.w") for n in range(3))
    assert (found.added, found.removed, found.cast, found.resized) == (("l.0.w",), (), (), ())


def test_weights_alone_keep_the_bases_names(tmp_path: Path) -> None:
    base, tuned = _renamed(tmp_path, lambda name: f"module.{name}")
    with pytest.raises(
        MismatchError, match=r"seem renamed; build and diff take them with --rename '\^=module\.'$"
    ):
        patchc.diff(base, tuned, out=tmp_path / "p.patchc", weights_only=True)
    patch = patchc.diff(
        base, tuned, out=tmp_path / "p.patchc", weights_only=True, rename=["^=module."]
    ).out
    patchc.apply(patch, base, out=tmp_path / "applied")
    assert read_model(tmp_path / "applied") == read_model(write_model(tmp_path / "same", CHANGED))


@pytest.mark.parametrize(
    "tuned",
    [
        CHANGED,
        {f"module.{name}": value for name, value in BASE.items()},
        {f"module.{name}": value[:-1] for name, value in BASE.items()},
        CHANGED | {"extra.weight": normal((50, 300), "BF16", 5)},
        {name: value for name, value in CHANGED.items() if "norm" in name},
        {f"x{n}": value for n, value in enumerate(CHANGED.values())},
        {f"{name}x": CHANGED[name] for name in list(BASE)[:2]}
        | {name: CHANGED[name] for name in list(BASE)[2:]},
    ],
    ids=["changed", "renamed", "resized", "added", "removed", "no common suffix", "few"],
)
def test_nothing_is_suggested_for_what_is_not_renamed_and_changed(
    tmp_path: Path, tuned: dict[str, Any]
) -> None:
    paths = write_model(tmp_path / "base", BASE), write_model(tmp_path / "tuned", tuned)
    assert patchc.diff(*paths, out=tmp_path / "p.patchc").suggested_renames == ()


def test_two_rules_may_be_needed(tmp_path: Path) -> None:
    """As when a text tower and a vision tower move below one model."""
    towers = {f"visual.{n}.proj.weight": normal((40, 250), "BF16", n) for n in range(3)}
    base = write_model(tmp_path / "base", BASE | towers)
    moved = {f"model.{name}": nudge(value, 0.01, 1) for name, value in towers.items()}
    text = {re.sub("^model", "model.text", name): value for name, value in CHANGED.items()}
    tuned = write_model(tmp_path / "tuned", text | moved)
    rules = patchc.diff(base, tuned, out=tmp_path / "p.patchc").suggested_renames
    assert {*rules} == {r"^model\.=model.text.", r"^visual\.=model.visual."}
    report = patchc.diff(base, tuned, out=tmp_path / "q.patchc", rename=rules)
    _there_and_back(tmp_path, report.out, base, tuned)
    found = patchc.inspect(report.out).update
    assert found is not None
    assert len(found.renamed) == len(BASE) - 1 + len(towers)


@pytest.mark.parametrize(
    ("tuned", "rule", "told"),
    [
        ("tuned", "^=modul.", r"makes 'modul\.model\S+' of 'model\S+', and like all names"),
        ("tuned", "^mod=module.", "does not have it; correct NEW"),
        ("base", "layers=blocks", r"tuned/|base does not have it"),
    ],
)
def test_a_rule_that_leads_nowhere_is_refused(
    tmp_path: Path, tuned: str, rule: str, told: str
) -> None:
    base, _ = _renamed(tmp_path, lambda name: f"module.{name}")
    with pytest.raises(UsageError, match=told):
        patchc.diff(base, tmp_path / tuned, out=tmp_path / "p.patchc", rename=rule)
    assert not (tmp_path / "p.patchc").exists()


def test_the_command_says_what_to_add(tmp_path: Path) -> None:
    base, tuned = _renamed(tmp_path, lambda name: f"it's a.{name}")
    rule = "^=it's a."
    _, printed, told = run("diff", base, tuned, "-o", tmp_path / "a.patchc", "--json")
    assert json.loads(printed)["suggested_renames"] == [rule]
    assert told.startswith("patchc: note: most tensors of ")
    assert "--weights-only too" in told
    added = shlex.split(told.rpartition(" add ")[2])
    assert added == ["--rename", rule]
    options = tmp_path / "options.toml"
    options.write_text(f'[diff]\nrename = ["{rule}"]\n')
    assert run("diff", base, tuned, "-o", tmp_path / "b.patchc", *added)[::2] == (0, "")
    for name, end in (("a", "--weights-only\n"), ("b", "--weights-only and --rename\n")):
        assert run("apply", tmp_path / f"{name}.patchc", base, "--in-place")[2].endswith(end)
    assert run("diff", base, tuned, "-o", tmp_path / "c.patchc", "--config", options)[0] == 0
    patches = [(tmp_path / name).read_bytes() for name in ("b.patchc", "c.patchc")]
    assert patches[0] == patches[1] != (tmp_path / "a.patchc").read_bytes()
    assert f"rename 1 {rule}" in re.sub(" +", " ", run("inspect", tmp_path / "b.patchc")[1])


# build -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["ulp", "additive"])
def test_a_build_reads_tuned_weights_and_scores_by_rules(tmp_path: Path, values: str) -> None:
    """SE with both renamed, OSM with the base's names: one rule serves, and the patch is equal."""
    inputs = small_inputs()
    paths: dict[str, Any] = inputs.write(tmp_path) | {"values": values}
    plain = patchc.build(**paths, out=tmp_path / "plain.patchc").out
    for kind, stem in ((inputs.tuned, "model"), (inputs.scores, "scores")):
        moved = {f"module.{name}": value for name, value in kind["se"].items()}
        write_model(tmp_path / "se", moved, stem=stem)
    with pytest.raises(
        MismatchError, match=r"seem renamed; build and diff take them with --rename '\^=module\.'$"
    ):
        patchc.build(**paths, out=tmp_path / "ruled.patchc")
    ruled, again = (
        patchc.build(**paths, out=tmp_path / name, rename="^=module.").out for name in ("r", "s")
    )
    assert ruled.read_bytes() == again.read_bytes()
    for patch in (plain, ruled):
        patchc.apply(patch, paths["base"], out=tmp_path / f"by-{patch.name}")
    assert tree(tmp_path / "by-plain.patchc") == tree(tmp_path / "by-r")
    told = [patchc.inspect(patch).metadata for patch in (plain, ruled)]
    assert told[1] == told[0] | {"rename": ["^=module."]}
    if values == "ulp":
        assert check_equal(inputs, Recipe(), ruled) > 0


def test_scores_in_a_file_of_their_own_are_read_by_rules(tmp_path: Path) -> None:
    inputs = small_inputs()
    paths = inputs.write(tmp_path)
    moved = {f"m.{name}": value for name, value in inputs.scores["osm"].items()}
    scores = write_file(tmp_path / "scores.safetensors", moved)
    given: dict[str, Any] = {**paths, "osm_scores": scores}
    patch = patchc.build(**given, out=tmp_path / "p.patchc", rename=["^=m."]).out
    assert check_equal(inputs, Recipe(), patch) > 0


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_a_merge_reads_models_by_rules(tmp_path: Path, method: str) -> None:
    base, tuned = small_models()
    recipe = MergeRecipe(method)
    paths = write_sources(tmp_path, base, tuned)
    plain = patchc.build(**paths, out=tmp_path / "plain.patchc", recipe=recipe)
    moved = {re.sub(r"^layers\.", "model.h.", name): value for name, value in tuned[1].items()}
    write_model(tmp_path / "tuned-1", moved)
    advice = (
        r"seem renamed; build and diff take them with --rename '\^layers\\\.=model\.h\.', alike"
    )
    with pytest.raises(MismatchError, match=advice):
        patchc.build(**paths, out=tmp_path / "r.patchc", recipe=recipe)
    rule = r"^layers\.=model.h."
    ruled = patchc.build(**paths, out=tmp_path / "r.patchc", recipe=recipe, rename=rule)
    assert (ruled.entries, ruled.result_digest) == (plain.entries, plain.result_digest)
    assert (ruled.base_digest, ruled.body_bytes) == (plain.base_digest, plain.body_bytes)
    with pytest.raises(UsageError, match="does not have it; correct NEW"):
        patchc.build(**paths, out=tmp_path / "s.patchc", recipe=recipe, rename="layers=blocks")
    write_model(tmp_path / "tuned-1", moved | {"layers.0.weight": tuned[1]["norm.weight"]})
    with pytest.raises(MismatchError, match=r"'layers\.0\.weight' is left over, since --rename"):
        patchc.build(**paths, out=tmp_path / "t.patchc", recipe=recipe, rename=rule)
