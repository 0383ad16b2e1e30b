"""Whatever changes weights refuses what a policy does not take, and leaves everything as it was."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from policy_world import PolicyWorld
from safetensors.torch import load_file
from threads_as_ranks import together
from tiny_checkpoints import tree

import patchc
import patchc.torch as live
from patchc.checkpoint import InPlaceWriter
from patchc.runtime.ranks import sharing
from patchc.signing import trust as trust_module
from patchc.verbs import apply as apply_module

Change = Callable[[PolicyWorld, Path, Path, patchc.Trust], Any]
"""What changes weights: with a patch, in or from the models of a folder."""


def _fold(_world: PolicyWorld, patch: Path, folder: Path, trust: patchc.Trust) -> Any:
    back = folder / "back.patchc"  # signed as the patch is: by a name in the file's
    signers = [name for name in patch.stem.split("-") if name != "unsigned"]
    patchc.diff(folder / "tuned", folder / "base", out=back, chunk_bits=12)
    for name in signers:
        patchc.sign(back, key=_world.model.private(name))
    try:
        return patchc.fold([patch, back], base=folder / "base", out=folder / "out", trust=trust)
    finally:
        back.unlink()


def _evaluate(_world: PolicyWorld, patch: Path, folder: Path, trust: patchc.Trust) -> Any:
    asked = patch.parent / "asked.jsonl"
    asked.write_text('{"prompt": "brew a tea"}\n')
    given = {"harmful": asked, "harmless": asked, "out": folder / "out"}
    return patchc.evaluate(folder / "base", patch=patch, trust=trust, **given)


def _landscape(_world: PolicyWorld, patch: Path, folder: Path, trust: patchc.Trust) -> Any:
    asked = patch.parent / "asked.jsonl"
    asked.write_text('{"prompt": "brew a tea"}\n')
    given = {"harmful": asked, "harmless": asked, "out": folder / "out"}
    return patchc.landscape(folder / "base", patch=patch, trust=trust, **given)


def _live(folder: Path, side: str) -> dict[str, Any]:
    return load_file(folder / side / "model.safetensors")


CHANGES: dict[str, Change] = {
    "apply": lambda _, patch, at, trust: patchc.apply(
        patch, at / "base", out=at / "out", trust=trust
    ),
    "apply dry": lambda _, patch, at, trust: patchc.apply(
        patch, at / "base", out=at / "out", dry_run=True, trust=trust
    ),
    "apply in place": lambda _, patch, at, trust: patchc.apply(
        patch, at / "base", in_place=True, trust=trust
    ),
    "apply in place dry": lambda _, patch, at, trust: patchc.apply(
        patch, at / "base", in_place=True, dry_run=True, trust=trust
    ),
    "revert": lambda _, patch, at, trust: patchc.revert(
        patch, at / "tuned", out=at / "out", trust=trust
    ),
    "revert in place": lambda _, patch, at, trust: patchc.revert(
        patch, at / "tuned", in_place=True, trust=trust
    ),
    "fold": _fold,
    "prepare": lambda _, patch, at, trust: live.prepare(_live(at, "base"), patch, trust=trust),
    "apply_": lambda _, patch, at, trust: live.apply_(_live(at, "base"), patch, trust=trust),
    "revert_": lambda _, patch, at, trust: live.revert_(_live(at, "tuned"), patch, trust=trust),
    "stream": lambda _, patch, at, trust: list(
        live.patched_tensors(patch, at / "base", trust=trust)
    ),
    "sparse updates": lambda _, patch, at, trust: list(
        live.sparse_updates(patch, at / "base", trust=trust)
    ),
}

MEASURES: dict[str, Change] = {"evaluate": _evaluate, "landscape": _landscape}


@pytest.fixture
def models(world: PolicyWorld) -> Path:
    """A folder with a base and a tuned model that a test may change."""
    folder = world.folder / "models"
    for model in (world.model.base, world.model.tuned):
        shutil.copytree(model, folder / model.name)
    return folder


def entries(folder: Path) -> set[str]:
    """Everything below a folder, folders and hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("source", ["machine", "call"])
@pytest.mark.parametrize("name", [*CHANGES, *MEASURES])
def test_what_changes_weights_refuses(
    world: PolicyWorld, models: Path, name: str, source: str
) -> None:
    change = {**CHANGES, **MEASURES}[name]
    trust = world.ask(source, "ann", "ben", require=2)
    before = tree(models), entries(models)
    for signers, told in (((), "is not signed"), (("ann",), "too few signatures: 1 of 2")):
        with pytest.raises(patchc.SignatureError, match=told):
            change(world, world.model.signed(*signers), models, trust)
        assert (tree(models), entries(models)) == before


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_signed_is_taken_and_the_report_says_by_whom(
    world: PolicyWorld, models: Path, name: str
) -> None:
    trust = world.ask("machine", "ann", "ben", require=2)
    report = CHANGES[name](world, world.model.signed("ann", "ben"), models, trust)
    if name in ("stream", "sparse updates"):
        assert len(report) == 2
        return
    report = getattr(report, "report", report)
    keys = tuple(sorted(world.model.ids[one] for one in ("ann", "ben")))
    assert {one.signed.valid for one in report.policies} == {keys}
    assert len(report.policies) == (2 if name == "fold" else 1)
    assert all(one.signed.satisfied for one in report.policies)


def test_a_live_model_is_not_touched(world: PolicyWorld) -> None:
    state = _live(world.model.folder, "base")
    before = {name: tensor.clone() for name, tensor in state.items()}
    with pytest.raises(patchc.SignatureError, match="is not signed"):
        live.apply_(state, world.model.signed(), trust=world.ask("call", "ann"))
    assert all(before[name].equal(tensor) for name, tensor in state.items())
    stream = live.patched_tensors(world.model.signed(), world.model.base)
    world.ask("machine", "ann")
    with pytest.raises(patchc.SignatureError, match="is not signed"):
        next(stream)


def test_a_policy_holds_for_the_rest_of_an_interrupted_run(
    world: PolicyWorld, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal stays, so that the signed file, whose root is the same, ends the run."""
    unsigned, model = world.model.signed(), models / "base"
    with monkeypatch.context() as patching:
        patching.setattr(InPlaceWriter, "write_words", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            patchc.apply(unsigned, model, in_place=True)
    world.ask("machine", "ann")
    before = tree(models), entries(models)
    assert any("journal" in name for name in before[1])
    for verb in (patchc.apply, patchc.revert):
        with pytest.raises(patchc.SignatureError, match="is not signed"):
            verb(unsigned, model, in_place=True)
    assert (tree(models), entries(models)) == before
    patchc.apply(world.model.signed("ann"), model, in_place=True)
    assert tree(model) == tree(world.model.tuned)


def test_what_was_checked_is_what_is_applied(
    world: PolicyWorld, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes the patch's place after the check is not read."""
    patch, other = world.folder / "fix.patchc", world.folder / "other.patchc"
    shutil.copy(world.model.signed("ann"), patch)
    patchc.diff(models / "tuned", models / "base", out=other)
    check = apply_module.demand_trust

    def exchanged_after(*given: Any) -> Any:
        found = check(*given)
        other.replace(patch)
        return found

    monkeypatch.setattr(apply_module, "demand_trust", exchanged_after)
    patchc.apply(patch, models / "base", out=models / "out", trust=world.ask("call", "ann"))
    assert not other.exists()
    assert tree(models / "out") == tree(world.model.tuned)


def test_each_rank_checks(world: PolicyWorld, models: Path) -> None:
    trust = world.ask("call", "ann")

    def run(ranks: Any) -> Any:
        with sharing(ranks):
            return patchc.apply(
                world.model.signed(), models / "base", out=models / "out", trust=trust, threads=1
            )

    ends = together(2, run)
    assert [type(end) for end in ends] == [patchc.SignatureError] * 2
    assert not (models / "out").exists()


@pytest.mark.parametrize("module", ["securesystemslib", "cryptography"])
def test_without_the_extra_a_policy_takes_nothing(
    world: PolicyWorld, models: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    patch = world.model.signed("ann")
    for name in list(sys.modules):
        if name.partition(".")[0] == module:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    before = tree(models), entries(models)
    with pytest.raises(patchc.MissingExtraError, match=rf"needs {module}.*\[sign\]"):
        patchc.apply(patch, models / "base", in_place=True, trust=world.ask("machine", "ann"))
    assert (tree(models), entries(models)) == before
    world.place("machine").unlink()
    patchc.apply(patch, models / "base", in_place=True)
    assert tree(models / "base") == tree(world.model.tuned)


class _Clock(datetime):
    off = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + cls.off


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (timedelta(minutes=-4), None),
        (timedelta(minutes=-6), "was issued at .*, which this system's clock has not reached yet"),
        (timedelta(days=-365), "set the clock, since a wrong one does not tell what has expired"),
        (timedelta(days=29), None),
        (timedelta(days=31), "expired at .*; ask for a newer patch"),
    ],
)
def test_the_clock(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, off: timedelta, told: str | None
) -> None:
    patch = world.folder / "fix.patchc"
    patchc.sign(world.model.signed(), key=world.model.private("ann"), out=patch, expires="30d")
    monkeypatch.setattr(trust_module, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "off", off)
    assert trust_module.datetime.now(UTC) != datetime.now(UTC)
    given = {"out": world.folder / "out", "trust": world.ask("call", "ann")}
    if told is None:
        patchc.apply(patch, world.model.base, **given)
        return
    with pytest.raises(patchc.SignatureError, match=told):
        patchc.apply(patch, world.model.base, **given)
    assert not given["out"].exists()


@pytest.mark.parametrize("source", ["file", "user", "machine"])
def test_a_policy_says_whether_code_may_be_allowed(world: PolicyWorld, source: str) -> None:
    patch, out = world.model.signed("ann"), world.folder / "out"
    asked = world.ask(source, "ann")
    trust = patchc.Trust(policies=asked.policies, allow_code=True)
    with pytest.raises(patchc.SignatureError, match="allow_code is not true there, so that no"):
        patchc.apply(patch, world.model.base, out=out, trust=trust)
    assert not out.exists()
    world.write(world.place(source), world.text("ann", allow_code=True))
    patchc.apply(patch, world.model.base, out=out, trust=trust)


def test_a_detached_signature_counts_for_every_policy(world: PolicyWorld) -> None:
    detached, out = world.folder / "fix.sig", world.folder / "out"
    patchc.sign(world.model.signed("ben"), key=world.model.private("ann"), detached=detached)
    world.ask("machine", "ann", "ben", require=2)
    with pytest.raises(patchc.SignatureError, match="too few signatures: 1 of 2"):
        patchc.apply(world.model.signed("ben"), world.model.base, out=out)
    trust = patchc.Trust(signatures=detached)
    patchc.apply(world.model.signed("ben"), world.model.base, out=out, trust=trust)
    assert tree(out) == tree(world.model.tuned)


def test_verify_tells_what_every_policy_says(world: PolicyWorld) -> None:
    world.ask("machine", "ann")
    trust = world.ask("call", "ann", "ben", require=2)
    report = patchc.verify(world.model.signed("ben"), world.model.base, trust=trust)
    assert (report.state, report.signature) == ("base", "not as required")
    assert [one.source for one in report.policies] == [
        "this call",
        f"policy {world.place('machine')}",
    ]
    assert [one.signed.satisfied for one in report.policies] == [False, False]
    report = patchc.verify(world.model.signed("ann", "ben"), trust=trust)
    assert (report.state, report.signature) == ("intact", "as required")
