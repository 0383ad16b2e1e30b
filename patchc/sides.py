"""The two sides of a patch: the base that it applies to, and the result that it leads to."""

from __future__ import annotations

from typing import Literal

Side = Literal["base", "result"]
"""A direction is named by the side that it leads to: applying targets the result, reverting the
base."""

OTHER: dict[Side, Side] = {"base": "result", "result": "base"}
"""The side across from each."""
