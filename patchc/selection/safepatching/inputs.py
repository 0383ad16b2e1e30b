"""Opens the inputs of a SafePatching build, and finds its candidates.

The inputs are a tuned model and scores for safety enhancement (SE), and the same for over-safety
mitigation (OSM). A candidate is a tensor that takes component.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from patchc.checkpoint import Checkpoint, TensorInfo, open_checkpoint, refuse_quantised
from patchc.dtypes import WEIGHT_DTYPES
from patchc.errors import MismatchError, MissingScoresError, UnsupportedInputError, UsageError
from patchc.paths import PathLike
from patchc.recipe import Recipe
from patchc.recipe.renames import NO_RENAMES, Renames
from patchc.recipe.safepatching import Score
from patchc.recipe.suggested_renames import rename_advice
from patchc.runtime.runtime import Buffers
from patchc.selection.candidates import NameFilter, check_overrides, find_transposed
from patchc.selection.compact.component_folder import CompactComponent, is_compact
from patchc.selection.safepatching.component import Component, ComponentName


def scores_stem(score: Score) -> str:
    """The start of the file names of scores of a kind."""
    return "scores" if score == "weight" else f"scores-{score}"


def components_read(recipe: Recipe) -> tuple[ComponentName, ...]:
    """The components that a recipe reads."""
    return (recipe.sets,) if recipe.sets in ("se", "osm") else ("se", "osm")


def open_components(
    inputs: ExitStack,
    base: Checkpoint,
    recipe: Recipe,
    paths: Mapping[ComponentName, tuple[PathLike | None, PathLike | None]],
    buffers: Buffers,
    renames: Renames = NO_RENAMES,
) -> tuple[Component, ...]:
    """Open the tuned weights and the scores of the components that the recipe reads.

    ``inputs`` closes them. ``paths`` has the tuned model and the scores of each component; None for
    scores beside the tuned weights. A tuned model may be a compact component, which has the base's
    names; in the other files ``renames`` says what the base's tensors are called.

    Raises:
        UsageError: a component that the recipe reads is missing, or a compact one is given scores;
            or the rules do not fit the names.
        MismatchError: scores are missing, or a compact component does not hold what the recipe
            needs, or is one of another base.
        UnsupportedInputError, CheckpointError: an input is quantised or cannot be read.
    """
    components = []
    names = renames.of(base)
    for name in components_read(recipe):
        tuned, scores = paths[name]
        if tuned is None:
            raise UsageError(
                f"the {name} model is missing, and sets {recipe.sets!r} needs it; name it with "
                f"--{name}"
            )
        compact = is_compact(tuned)
        opened = _open_compact if compact else _open_whole
        models = opened(base, name, Path(tuned), scores, recipe)
        weights, ranks = (
            one if compact else names.view(one) for one in map(inputs.enter_context, models)
        )
        components.append(Component(name, weights, ranks, recipe, buffers))
    names.check_found(model for one in components for model in (one.tuned, one.scores))
    return tuple(components)


def _open_compact(
    base: Checkpoint, name: str, folder: Path, scores: PathLike | None, recipe: Recipe
) -> Iterator[Checkpoint]:
    if scores is not None:
        raise UsageError(
            f"--{name}-scores is given, and {folder} is a compact component, which has scores of "
            "its own; leave it out"
        )
    component = CompactComponent.open(folder, base)
    component.check_component(name, recipe)
    yield component.tuned()
    yield component.scores(recipe.score)


def _open_whole(
    _base: Checkpoint, name: str, tuned: Path, scores: PathLike | None, recipe: Recipe
) -> Iterator[Checkpoint]:
    model = open_checkpoint(tuned)
    yield model  # who takes it closes it, whatever comes next
    refuse_quantised(model)
    yield _open_scores(name, tuned, scores, recipe.score)


def _open_scores(name: str, tuned: Path, scores: PathLike | None, kind: Score) -> Checkpoint:
    stem = scores_stem(kind)
    if scores is not None:
        return open_checkpoint(scores, stem=stem)
    folder = tuned if tuned.is_dir() else tuned.parent
    beside = (folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json")
    if not any(path.exists() for path in beside):
        raise MissingScoresError(
            f"{folder}: no {stem}.safetensors beside the {name} model; derive it with "
            f"`patchc derive --score {kind}`, or name the scores with --{name}-scores",
            str(beside[0]),
        )
    return open_checkpoint(folder, stem=stem)


def find_candidates(
    base: Checkpoint, components: tuple[Component, ...], recipe: Recipe
) -> list[TensorInfo]:
    """Find the candidates in the base and check them; sorted by the bytes of their names.

    They have scores in every component and pass include and exclude.

    Raises:
        MismatchError: names, shapes or dtypes do not fit, or no tensor is left.
        UnsupportedInputError: a tensor's dtype cannot be merged, or the scope is "row" and matrices
            are stored as input × output.
        UsageError: an override matches no tensor that takes component.
    """
    names = NameFilter(recipe.include, recipe.exclude)
    candidates = []
    for name, tensor in base.tensors.items():
        if not names.matches(name):
            continue
        missing = [component for component in components if name not in component.scores.tensors]
        if not missing:
            _check_candidate(base, tensor, components)
            candidates.append(tensor)
        elif recipe.include:
            raise MismatchError(
                f"tensor {name!r} is included and has no scores in {missing[0].scores.path}; "
                "derive its scores, or narrow the include expressions"
                f"{rename_advice(base, missing[0].scores)}"
            )
    for component in components:
        for name in component.scores.tensors:
            if name not in base.tensors:
                raise MismatchError(
                    f"{component.scores.path} scores tensor {name!r}, which {base.path} does not "
                    "have; were they derived from another base?"
                    f"{rename_advice(base, component.scores)}"
                )
    if not candidates:
        raise MismatchError(
            f"no tensor of {base.path} has scores from every component and passes include and "
            "exclude; there is nothing to build: change include or exclude"
        )
    _check_recipe(base, recipe, candidates)
    return sorted(candidates, key=lambda tensor: tensor.name.encode())


def _check_recipe(base: Checkpoint, recipe: Recipe, candidates: list[TensorInfo]) -> None:
    check_overrides(recipe.overrides, [tensor.name for tensor in candidates])
    if recipe.scope == "row":
        transposed = find_transposed({name: info.shape for name, info in base.tensors.items()})
        if transposed is not None:
            raise UnsupportedInputError(
                f"{base.path}: tensor {transposed!r} is stored as input × output, so its rows are "
                "not those of the outputs; take scope tensor or global"
            )


def _check_candidate(
    base: Checkpoint, tensor: TensorInfo, components: tuple[Component, ...]
) -> None:
    if tensor.dtype.name not in WEIGHT_DTYPES:
        raise UnsupportedInputError(
            f"{base.path}: tensor {tensor.name!r} is {tensor.dtype.name}; a build merges into "
            f"{', '.join(WEIGHT_DTYPES)}. Exclude it"
        )
    for component in components:
        tuned = component.tuned.tensors.get(tensor.name)
        if tuned is None:
            raise MismatchError(
                f"{component.tuned.path}: tensor {tensor.name!r} is missing"
                f"{rename_advice(base, component.tuned)}"
            )
        scores = component.scores.tensors[tensor.name]
        for owner, info in ((component.tuned, tuned), (component.scores, scores)):
            if info.shape != tensor.shape:
                raise MismatchError(
                    f"{owner.path}: tensor {tensor.name!r} has shape {list(info.shape)} and the "
                    f"base's is {list(tensor.shape)}"
                )
        if tuned.dtype.name not in WEIGHT_DTYPES:
            raise MismatchError(
                f"{component.tuned.path}: tensor {tensor.name!r} is {tuned.dtype.name}; tuned "
                f"weights must be {', '.join(WEIGHT_DTYPES)}"
            )
        if scores.dtype.name != "F32":
            raise MismatchError(
                f"{component.scores.path}: tensor {tensor.name!r} is {scores.dtype.name}; scores "
                "are F32"
            )
