"""The scripts of benchmarks/ as modules; behind all others, so that none of theirs is hidden."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
