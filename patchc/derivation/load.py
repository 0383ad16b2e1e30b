"""How much text passes a model at once, which decides the memory of a derivation beside weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.derivation.examples import Example, Tokens


@dataclass(frozen=True)
class Load:
    """One run of a model.

    Attributes:
        rows, columns: of its tokens.
        places: how many tokens' logits are computed.
    """

    rows: int
    columns: int
    places: int

    @property
    def tokens(self) -> int:
        """Number of tokens, padding included."""
        return self.rows * self.columns


def of_examples(examples: Sequence[Example], rows: int) -> Load:
    """The largest batch of so many examples whose responses' tokens alone have logits."""
    columns = max(len(one.prompt) + len(one.response) for one in examples)
    places = sorted((len(one.response) for one in examples), reverse=True)
    # A batch may hold the same example twice, at the seam of two passes over the data.
    return Load(rows, columns, sum((places * (-(-rows // len(places))))[:rows]))


def of_following(prompts: Sequence[Tokens], following: Sequence[Tokens], rows: int) -> Load:
    """The largest batch of so many prompts, with logits for as many places in each row."""
    width = max(map(len, following), default=0)
    return Load(rows, max(map(len, prompts)) + width, rows * (width + 1))
