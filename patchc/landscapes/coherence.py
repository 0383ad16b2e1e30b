"""Which replies are coherent, by the model before it was moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from patchc.derivation.aligned import likely_in_responses
from patchc.derivation.examples import Example
from patchc.evaluation.texts import is_degenerate

_TOGETHER = 64

Said = tuple[tuple[int, ...], tuple[int, ...]]
"""A request and the reply to it, as token ids."""


class Coherence:
    """Judges whether replies are coherent.

    A reply is incoherent if it is empty or loops (:func:`patchc.evaluation.texts.is_degenerate`),
    or if the model gives its tokens, each where it first occurs, a mean of −log p above ½ · log V,
    where V is the number of tokens that it knows. A guess among all tokens has log V, text that the
    model finds ordinary 1 to 3, so that half is between them for every vocabulary. Tokens that
    occur again do not count, since what repeats is easily foretold, in babble too. The rule is our
    own.

    Args:
        model: the base, which is unmoved when it is asked.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._bound = math.log(model.get_input_embeddings().num_embeddings) / 2
        self._known: dict[Said, bool] = {}

    def judge(
        self,
        prompts: Sequence[Sequence[int]],
        spoken: Sequence[Sequence[int]],
        replies: Sequence[str],
    ) -> list[bool]:
        """Return whether each reply is coherent; one that was judged before is not judged again.

        Args:
            prompts: token ids of the requests.
            spoken: token ids of the replies.
            replies: the replies' texts.
        """
        said = [(tuple(one), tuple(reply)) for one, reply in zip(prompts, spoken, strict=True)]
        fine = [not is_degenerate(reply) for reply in replies]
        asked = {one for one, is_fine in zip(said, fine, strict=True) if is_fine}
        # Shortest first, so that little is padded.
        new = sorted(asked - self._known.keys(), key=lambda one: (len(one[0]) + len(one[1]), one))
        for first in range(0, len(new), _TOGETHER):
            self._ask(new[first : first + _TOGETHER])
        return [is_fine and self._known[one] for one, is_fine in zip(said, fine, strict=True)]

    def _ask(self, said: Sequence[Said]) -> None:
        examples = [Example(*one) for one in said]
        own = [torch.tensor(example.response)[:, None] for example in examples]
        with torch.inference_mode():
            likely = likely_in_responses(self._model, examples, own)
        for one, found in zip(said, likely, strict=True):
            reply = one[1]
            first = [place for place, token in enumerate(reply) if token not in reply[:place]]
            self._known[one] = -found[first].mean().item() <= self._bound
