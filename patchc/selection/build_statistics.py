"""What a build tells of its tensors and of its inputs, gathered over all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchc.compiler.rank_messages import TensorReport
from patchc.hashing import model_digest


class BuildStatistics:
    """The statistics and digests that go into a patch's metadata."""

    def __init__(self) -> None:
        self._statistics: dict[str, dict[str, int]] = {}
        self._inputs: dict[str, list[tuple[str, bytes]]] = {}

    def note(self, tensor: str, finding: TensorReport) -> None:
        """Take in a tensor's finding: none where it takes no part, else its counts and digests."""
        if finding:
            self._statistics[tensor] = finding["statistics"]
            for label, digest in finding["inputs"].items():
                self._inputs.setdefault(label, []).append((tensor, bytes.fromhex(digest)))

    def metadata(self) -> Mapping[str, Any]:
        """One digest an input model, and the statistics of each tensor."""
        inputs = {label: model_digest(pairs).hex() for label, pairs in self._inputs.items()}
        return {"inputs": inputs, "statistics": self._statistics}
