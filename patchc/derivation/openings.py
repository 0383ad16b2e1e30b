"""How refusals begin: the shortest starts of replies that tell a refusal from an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from patchc.errors import DeriveError

Tokens = tuple[int, ...]

_LONGEST = 8
_MOST = 8
_PURE = 0.9


@dataclass(frozen=True)
class Openings:
    """Token sequences with which refusals begin; none begins with another.

    Attributes:
        sequences: the openings, the most frequent first.
        stems: what comes before the last token of an opening, such that every opening's stem
            begins one of them: the prompts have to be continued with these alone.
        covered: the share of the refusals that they were found in which begin with one.
    """

    sequences: tuple[Tokens, ...]
    stems: tuple[Tokens, ...]
    covered: float = 1.0

    @classmethod
    def of(cls, sequences: Sequence[Tokens], covered: float = 1.0) -> Openings:
        """Openings from token sequences, those that begin with another one left out."""
        kept = [one for one in dict.fromkeys(sequences) if one and not _begins(one, sequences)]
        stems = sorted({one[:-1] for one in kept}, key=len, reverse=True)
        longest = [
            stem
            for place, stem in enumerate(stems)
            if not any(other[: len(stem)] == stem for other in stems[:place])
        ]
        return cls(tuple(kept), tuple(longest), covered)


def find_openings(refusals: Sequence[Tokens], answers: Sequence[Tokens]) -> Openings:
    """The openings of refusals: of each, the shortest start that hardly an answer has.

    Of the replies that begin so, at least nine in ten are refusals: a judge that misses a refusal
    must not hide how all others begin. A refusal whose first eight tokens are those of answers
    shows itself too late to be told by its opening, and is left out; so are rare openings beyond
    the eighth, each of which would cost a pass over every request.

    Args:
        refusals, answers: replies as tokens.

    Raises:
        DeriveError: there is no refusal, or none begins otherwise than answers do.
    """
    if not refusals:
        raise DeriveError(
            f"none of the base's {len(answers)} replies is a refusal, so how its refusals begin "
            "cannot be found; name openings, or take a judge that knows them"
        )
    refused = Counter(start for refusal in refusals for start in _starts(refusal))
    answered = Counter(start for answer in answers for start in _starts(answer))
    found: Counter[Tokens] = Counter()
    for refusal in refusals:
        telling = (
            start
            for start in _starts(refusal)
            if refused[start] >= _PURE * (refused[start] + answered[start])
        )
        opening = next(telling, None)
        if opening:
            found[opening] += 1
    if not found:
        raise DeriveError(
            f"of {len(refusals)} refusals none begins otherwise than the {len(answers)} answers, "
            f"within {_LONGEST} tokens; name openings, or take a judge that tells them apart"
        )
    taken = found.most_common(_MOST)
    covered = sum(count for _, count in taken) / len(refusals)
    return Openings.of([opening for opening, _ in taken], covered)


def _starts(reply: Tokens) -> list[Tokens]:
    return [reply[:length] for length in range(1, min(_LONGEST, len(reply)) + 1)]


def _begins(one: Tokens, others: Sequence[Tokens]) -> bool:
    return any(len(other) < len(one) and one[: len(other)] == other for other in others if other)
