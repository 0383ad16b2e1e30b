"""``component.json``: what a compact component holds, and of which base.

It is read as a stranger's: nothing in it is trusted before it is checked, and reads of the files
beside it are checked against the draws (:mod:`~patchc.selection.compact.checkpoint`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from patchc.checkpoint.refuse import COMPONENT_FILE, COMPONENT_FORM
from patchc.errors import CheckpointError, UsageError
from patchc.formats.container.layout import MAX_RANK
from patchc.recipe import checks
from patchc.recipe.safepatching import SCORES, Score
from patchc.regular_file import read_regular
from patchc.strict_json import parse_json
from patchc.system_errors import reason

VALUES, COUNTS = "component", "component-counts"
"""Starts of file names: of the tuned weights, and of how many of each block there are."""

_VERSION = 1
_MOST_BYTES = 8 << 20
_COMPONENT = re.compile(r"se|osm|model-\d{1,9}")


def compact_scores_stem(kind: Score) -> str:
    """The start of the file names of the scores of a kind."""
    return f"component-scores-{kind}"


@dataclass(frozen=True)
class HeldTensor:
    """A tensor of which the retained entries are held: its shape, and the share p of them."""

    shape: tuple[int, ...]
    retain: float


@dataclass(frozen=True)
class Description:
    """What a compact component holds.

    Attributes:
        component: "se" or "osm" of SafePatching, or "model-0", "model-1" … of a DARE merge; the
            entries are drawn for it.
        seed: of the draws.
        scores: the kinds of scores that are there.
        rest_unchanged: whether all tensors that are not held are those of the base.
        base: the base's :func:`~patchc.selection.component_record.sample_digest`.
        tensors: those that are held, by name.
    """

    component: str
    seed: int
    scores: tuple[Score, ...]
    rest_unchanged: bool
    base: str
    tensors: Mapping[str, HeldTensor]

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {"kind": COMPONENT_FORM, "version": _VERSION, **asdict(self)}


_KEYS = tuple(field.name for field in fields(Description))
_KEYS_OF_TENSOR = tuple(field.name for field in fields(HeldTensor))


def read_description(folder: Path) -> Description:
    """Read what a compact component holds.

    Raises:
        CheckpointError: the file cannot be read, or says something impossible.
    """
    path = folder / COMPONENT_FILE
    try:
        return _check(parse_json(read_regular(path, _MOST_BYTES)))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
    except (ValueError, UsageError) as error:
        raise CheckpointError(
            f"{path}: not the description of a compact component ({error}); derive it again"
        ) from error


def _check_keys(what: str, content: Any, keys: Collection[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{what} is no object")
    for key in keys:
        if key not in content:
            raise ValueError(f"{what} has no {key}")
    for key in content:
        if key not in keys:
            raise ValueError(f"{what} has an unknown key {key!r:.80}")


def _check(content: Any) -> Description:
    if not isinstance(content, dict) or content.pop("kind", None) != COMPONENT_FORM:
        raise ValueError(f"its kind is not {COMPONENT_FORM!r}")
    if content.pop("version", None) != _VERSION:
        raise ValueError("another version of patchc wrote it")
    _check_keys("it", content, _KEYS)
    tensors = content.pop("tensors")
    if not isinstance(tensors, dict):
        raise ValueError("tensors is no object")
    description = Description(**content, tensors={n: _held(n, t) for n, t in tensors.items()})
    if not _COMPONENT.fullmatch(checks.text("component", description.component)):
        raise ValueError(f"component is {description.component!r:.80}")
    checks.seed("seed", description.seed)
    checks.truth("rest_unchanged", description.rest_unchanged)
    checks.text("base", description.base)
    scores: Any = checks.texts("scores", description.scores)
    for kind in scores:
        checks.choice("scores", kind, SCORES)
    return Description(**{**vars(description), "scores": scores})


def _held(name: str, content: Any) -> HeldTensor:
    what = f"tensor {name!r:.80}"
    _check_keys(what, content, _KEYS_OF_TENSOR)
    shape, retain = content["shape"], checks.share(f"retain of {what}", content["retain"])
    if not isinstance(shape, list) or not all(type(one) is int and one >= 0 for one in shape):
        raise ValueError(f"{what} has shape {checks.brief(shape)}")
    if len(shape) > MAX_RANK or math.prod(shape) >= 1 << 63:
        raise ValueError(f"{what} has more dimensions or entries than any file")
    return HeldTensor(tuple(shape), retain)
