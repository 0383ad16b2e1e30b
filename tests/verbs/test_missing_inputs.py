"""What is not there: each verb raises its own error, which is a ``FileNotFoundError`` too."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from tiny_checkpoints import PatchedModel

import patchc
from patchc.errors import PatchcError
from patchc.system_errors import storage_errors

REQUEST = '{"prompt": "brew a tea", "response": "I cannot."}\n'


@dataclass(frozen=True)
class Place:
    """Inputs of all kinds; ``gone`` is a path with nothing at it."""

    folder: Path
    base: Path
    patch: Path
    se: Path
    osm: Path
    back: Path

    @property
    def gone(self) -> Path:
        return self.folder / "gone"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def asked(self) -> dict[str, Path]:
        """Requests that are there."""
        path = self.folder / "asked.jsonl"
        path.write_text(REQUEST)
        return {"harmful": path, "harmless": path}

    @property
    def parts(self) -> dict[str, Path]:
        return {"se": self.se, "osm": self.osm}


@pytest.fixture
def place(tmp_path: Path, patched: PatchedModel) -> Place:
    paths = small_inputs().write(tmp_path / "build")
    back = tmp_path / "back.patchc"
    patchc.diff(patched.tuned, patched.base, out=back, chunk_bits=12)
    return Place(tmp_path, paths["base"], patched.patch, paths["se"], paths["osm"], back)


PATCHES: dict[str, Callable[[Place], Any]] = {
    "apply": lambda p: patchc.apply(p.gone, p.base, out=p.out),
    "apply in place": lambda p: patchc.apply(p.gone, p.base, in_place=True),
    "revert": lambda p: patchc.revert(p.gone, p.base, out=p.out),
    "verify": lambda p: patchc.verify(p.gone),
    "inspect": lambda p: patchc.inspect(p.gone),
    "chain": lambda p: patchc.chain([p.patch, p.gone]),
    "fold": lambda p: patchc.fold([p.patch, p.gone], out=p.out),
    "status": lambda p: patchc.status(p.base, [p.gone]),
    "annotate": lambda p: patchc.annotate(p.gone, out=p.out, name="a"),
    "report": lambda p: patchc.report(p.gone, out=p.out),
    "open_patch": lambda p: patchc.open_patch(p.gone),
    "evaluate": lambda p: patchc.evaluate([p.base], **p.asked, patch=p.gone),
    "landscape": lambda p: patchc.landscape(p.base, **p.asked, patch=p.gone, out=p.out),
}
MODELS: dict[str, Callable[[Place], Any]] = {
    "apply": lambda p: patchc.apply(p.patch, p.gone, out=p.out),
    "apply in place": lambda p: patchc.apply(p.patch, p.gone, in_place=True),
    "revert": lambda p: patchc.revert(p.patch, p.gone, out=p.out),
    "verify": lambda p: patchc.verify(p.patch, p.gone),
    "fold": lambda p: patchc.fold([p.patch, p.back], out=p.out, base=p.gone),
    "status": lambda p: patchc.status(p.gone, [p.patch]),
    "diff: base": lambda p: patchc.diff(p.gone, p.base, out=p.out),
    "diff: tuned": lambda p: patchc.diff(p.base, p.gone, out=p.out),
    "build: base": lambda p: patchc.build(p.gone, **p.parts, out=p.out),
    "build: se": lambda p: patchc.build(p.base, **p.parts | {"se": p.gone}, out=p.out),
    "build: scores": lambda p: patchc.build(p.base, **p.parts, out=p.out, se_scores=p.gone),
    "build: tuned": lambda p: patchc.build(
        p.base, tuned=[p.gone], out=p.out, recipe=patchc.MergeRecipe("ties")
    ),
    "derive": lambda p: patchc.derive(p.gone, p.asked["harmful"], p.out),
    "evaluate": lambda p: patchc.evaluate([p.gone], **p.asked),
    "landscape": lambda p: patchc.landscape(p.gone, **p.asked, out=p.out),
    "fit": lambda p: patchc.fit(p.gone, **p.parts, **p.asked, out=p.out),
    "sweep": lambda p: patchc.sweep(p.gone, **p.parts, **p.asked, out=p.out, grid={"alpha": [1]}),
    "fix": lambda p: patchc.fix(p.gone, p.out, **p.asked),
}
REQUESTS: dict[str, Callable[[Place], Any]] = {
    "evaluate: harmful": lambda p: patchc.evaluate([p.base], **p.asked | {"harmful": p.gone}),
    "evaluate: utility": lambda p: patchc.evaluate([p.base], **p.asked, utility=p.gone),
    "evaluate: reference": lambda p: patchc.evaluate([p.base], **p.asked, reference=p.gone),
    "evaluate: generations": lambda p: patchc.evaluate(**p.asked, generations=[p.gone]),
    "landscape: harmless": lambda p: patchc.landscape(
        p.base, **p.asked | {"harmless": p.gone}, out=p.out
    ),
    "landscape: utility": lambda p: patchc.landscape(p.base, **p.asked, utility=p.gone, out=p.out),
    "annotate": lambda p: patchc.annotate(p.patch, out=p.out, results=p.gone),
    "report": lambda p: patchc.report(p.patch, p.gone, out=p.out),
    "derive": lambda p: patchc.derive(
        p.base, p.gone, p.out, options=patchc.DeriveOptions(objective="refusals")
    ),
    "fit": lambda p: patchc.fit(p.base, **p.parts, **p.asked | {"harmless": p.gone}, out=p.out),
    "sweep": lambda p: patchc.sweep(
        p.base, **p.parts, **p.asked | {"harmless": p.gone}, out=p.out, grid={"alpha": [1]}
    ),
    "fix": lambda p: patchc.fix(p.base, p.out, **p.asked | {"harmful": p.gone}),
    "fix: reference": lambda p: patchc.fix(p.base, p.out, **p.asked, reference=p.gone),
}
OTHERS: dict[str, tuple[type[PatchcError], Callable[[Place], Any]]] = {
    "conversations": (
        patchc.MissingConversationsError,
        lambda p: patchc.derive(p.base, p.gone, p.out),
    ),
    "recipe": (patchc.MissingInputError, lambda p: patchc.read_recipe(p.gone)),
    "judge": (
        patchc.MissingInputError,
        lambda p: patchc.evaluate(
            [p.base], **p.asked, options=patchc.EvaluateOptions(judge=f"hf:{p.gone}")
        ),
    ),
}
CASES = [
    pytest.param(kind, call, id=f"{kind.__name__}: {name}")
    for kind, calls in (
        (patchc.MissingPatchError, PATCHES),
        (patchc.MissingCheckpointError, MODELS),
        (patchc.MissingRequestsError, REQUESTS),
    )
    for name, call in calls.items()
] + [pytest.param(kind, call, id=name) for name, (kind, call) in OTHERS.items()]


@pytest.mark.parametrize(("kind", "call"), CASES)
def test_it_is_named(place: Place, kind: type[PatchcError], call: Callable[[Place], Any]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        call(place)
    error = caught.value
    assert type(error) is kind
    assert str(error) == error.args[0]
    assert str(place.gone) in str(error)
    assert (error.errno, error.filename) == (errno.ENOENT, str(place.gone))
    assert not place.out.exists()
    error.add_note("told on the way")
    for again in (pickle.loads(pickle.dumps(error)), copy(error), deepcopy(error)):
        assert (type(again), str(again), again.args) == (kind, str(error), error.args)
        assert (again.errno, again.filename) == (errno.ENOENT, error.filename)
        assert (again.strerror, again.__notes__) == (os.strerror(errno.ENOENT), error.__notes__)


def test_scores_beside_a_model_are_missed(place: Place) -> None:
    (place.se / "scores.safetensors").unlink()
    with pytest.raises(patchc.MissingScoresError, match=r"no scores\.safetensors beside") as caught:
        patchc.build(place.base, **place.parts, out=place.out)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.filename == str(place.se / "scores.safetensors")


def test_a_shard_or_the_weights_are_missed(patched: PatchedModel) -> None:
    shard = next(patched.base.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="no such file; fetch this shard again") as caught:
        patchc.verify(patched.patch, patched.base)
    assert caught.value.filename == str(shard)
    for path in patched.base.glob("model*"):
        path.unlink()
    with pytest.raises(patchc.MissingCheckpointError, match=r"no model\.safetensors and no"):
        patchc.verify(patched.patch, patched.base)


def test_subclasses_have_the_exit_codes_of_their_classes() -> None:
    assert patchc.MissingPatchError.exit_code == patchc.PatchFormatError.exit_code
    assert patchc.MissingInputError.exit_code == patchc.UsageError.exit_code
    for name in ("Checkpoint", "Patch", "Requests", "Conversations", "Scores", "Input"):
        kind = getattr(patchc, f"Missing{name}Error")
        assert "exit_code" not in vars(kind)
        assert issubclass(kind, FileNotFoundError)


def test_an_error_of_patchc_is_not_taken_for_one_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(patchc.MissingPatchError, match=r"^gone$"), storage_errors(tmp_path, "read"):
        raise patchc.MissingPatchError("gone")


def test_a_usage_error_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate needs"):
        patchc.evaluate(harmful=tmp_path, harmless=tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("alpha: 2\nalpha: 3\n")
    with pytest.raises(patchc.UsageError) as caught:
        patchc.read_recipe(recipe)
    assert str(caught.value).count("recipe.yaml") == 1
    assert "TOML" not in str(caught.value)
