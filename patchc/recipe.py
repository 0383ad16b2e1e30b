"""The parameters of a build: validated, read from TOML, serialised into the patch."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from patchc.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a SafePatching patch is selected and scaled (arXiv 2405.13820).

    Attributes:
        retain: probability p that an entry is retained, per component, in [0, 1].
        top_se: share a of a tensor's entries taken by SE score among the retained, in [0, 1].
        top_osm: share b taken by OSM score among the retained, in [0, 1].
        alpha: scale α of the safety-enhancement delta; finite.
        beta: scale β of the over-safety-mitigation delta; finite.
        seed: 64-bit seed of the retention draws.
        include: regular expressions; only matching tensors take part (empty: all with scores).
        exclude: regular expressions; matching tensors take no part.

    The defaults are our own, from the sweep recorded in ``docs/defaults.md``; the paper gives none.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    retain: float = 0.3
    top_se: float = 0.1
    top_osm: float = 0.1
    alpha: float = 8.0
    beta: float = 16.0
    seed: int = 0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("retain", "top_se", "top_osm"):
            value = _number(name, getattr(self, name))
            if not 0.0 <= value <= 1.0:
                raise UsageError(f"{name} is {value}; it must lie between 0 and 1")
            object.__setattr__(self, name, value)
        for name in ("alpha", "beta"):
            value = _number(name, getattr(self, name))
            if not math.isfinite(value) or abs(value) > 3.4e38:
                raise UsageError(f"{name} is {value}; it must be a finite fp32 number")
            object.__setattr__(self, name, value)
        if type(self.seed) is not int or not 0 <= self.seed < 2**64:
            raise UsageError(f"seed is {self.seed!r}; it must be a whole number below 2**64")
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            listed = isinstance(patterns, list | tuple)
            if not listed or not all(isinstance(pattern, str) for pattern in patterns):
                raise UsageError(f"{name} is {patterns!r}; it must be a list of expressions")
            object.__setattr__(self, name, tuple(patterns))

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, for a patch's provenance."""
        return asdict(self)

    def with_changes(self, **changes: Any) -> Recipe:
        """A copy with those of ``changes`` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a TOML file whose keys are the names of :class:`Recipe`.

    Raises:
        UsageError: the file is missing, malformed, or has an unknown or invalid key.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path}: cannot read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: not valid TOML ({error})") from error
    known = [field.name for field in fields(Recipe)]
    for key in content:
        if key not in known:
            raise UsageError(f"recipe {path}: unknown key {key!r}; known are {', '.join(known)}")
    try:
        return Recipe(**content)
    except UsageError as error:
        raise UsageError(f"recipe {path}: {error}") from error


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is too large for a number") from error
