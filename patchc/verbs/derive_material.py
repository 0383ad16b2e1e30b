"""What each objective of ``derive`` learns from, with the base asked where it has to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from patchc.checkpoint import Checkpoint
from patchc.derivation.conversations import Conversation
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.examples import encode_opening
from patchc.derivation.margin import Labelled
from patchc.derivation.material import Material
from patchc.derivation.openings import Openings, find_openings
from patchc.derivation.session import quiet_transformers
from patchc.errors import DeriveError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import stated_length
from patchc.evaluation.prompts import Prompts
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.verdicts import Judge
from patchc.progress import Progress
from patchc.verbs.base_replies import Reply, ask_base, encode_requests
from patchc.verbs.derive_inputs import Inputs

Tokens = tuple[int, ...]

_ANCHOR_TOKENS = 32
_REFUSAL_TOKENS = 128


def gather(
    checkpoint: Checkpoint,
    inputs: Inputs,
    options: DeriveOptions,
    judge: str | Judge,
    progress: Progress,
) -> Material:
    """Make the material of a derivation; the base is asked only where its replies are needed.

    Raises:
        DeriveError: a request or an opening cannot be tokenised as it must be, a request leaves no
            room for a reply, or the base's replies hold no refusal, nothing but refusals, or
            nothing to anchor on.
        EvaluateError, UnsupportedInputError, UsageError: see
            :func:`patchc.verbs.base_replies.ask_base`.
    """
    plain = Material(inputs.conversations, record=inputs.record)
    if not any(inputs.requests.items()):
        return plain
    asking = EvaluateOptions(judge=judge, device=options.device)
    encoded = encode_requests(checkpoint, inputs.requests, asking, options.max_length)
    to_ask = _to_ask(inputs.requests, options)
    replies: dict[SetName, list[Reply]] = {}
    if to_ask:
        room = _room(checkpoint.path, to_ask, encoded)
        longest = _REFUSAL_TOKENS if options.objective == "refusals" else _ANCHOR_TOKENS
        asking = replace(asking, max_new_tokens=min(longest, room))
        replies = ask_base(checkpoint, to_ask, encoded, asking, progress)
    base = _Base(inputs.requests, encoded, replies, options, asking)
    if options.objective == "margin":
        openings = base.openings()
        record = {**inputs.record, **_openings_record(encoded.tokenizer, openings)}
        return Material(
            labelled=base.labelled(), openings=openings, anchors=base.anchors(), record=record
        )
    anchored = replace(plain, anchors=base.anchors())
    if options.objective == "refusals":
        refusal = options.refusal or base.refusal()
        refused = tuple(_with_reply(one, refusal) for one in inputs.requests.harmful)
        record = {**inputs.record, "refusal": refusal}
        return replace(anchored, conversations=refused, record=record)
    return anchored


@dataclass(frozen=True)
class _Base:
    """The base's tokens of all requests, and its replies to those that it was asked."""

    requests: RequestSets
    encoded: Prompts
    replies: Mapping[SetName, Sequence[Reply]]
    options: DeriveOptions
    asking: EvaluateOptions

    @property
    def judge(self) -> str:
        return self.asking.judge_name

    def labelled(self) -> tuple[Labelled, ...]:
        tokens = self.encoded.tokens
        refuse = [Labelled(tuple(prompt), True) for prompt in tokens["harmful"]]
        harmless = [*tokens["harmless"], *tokens.get("utility", ())]
        answer = [Labelled(tuple(prompt), False) for prompt in harmless]
        return (*refuse, *answer)

    def anchors(self) -> tuple[tuple[Tokens, Tokens], ...]:
        """Requests that the base answers, of the harmless ones and of the anchor's file."""
        if not self.options.weight_of_anchor:
            return ()
        found = tuple(
            (tuple(prompt), reply.tokens[:_ANCHOR_TOKENS])
            for name in ("harmless", "utility")
            for prompt, reply in zip(
                self.encoded.tokens.get(name, ()), self.replies.get(name, ()), strict=True
            )
            if reply.verdict == "answered"
        )
        if not found:
            raise DeriveError(
                f"the base answers none of the harmless requests (judge {self.judge}), so there is "
                "nothing to anchor on; name harmless requests as anchor, or set anchor_weight to 0"
            )
        return found

    def openings(self) -> Openings:
        """Those of the options, or those that tell the base's refusals from its answers."""
        if self.options.openings:
            asked = self.requests.harmful[0]
            talks = [
                replace(_with_reply(asked, text.strip()), source=f"opening {text!r}")
                for text in self.options.openings
            ]
            return Openings.of([encode_opening(self.encoded.tokenizer, one) for one in talks])
        every = [*self.replies["harmful"], *self.replies["harmless"]]
        refused = [reply.tokens for reply in every if reply.verdict == "refused"]
        others = [reply.tokens for reply in every if reply.verdict != "refused"]
        if not refused:
            raise DeriveError(
                f"the base refuses none of the {len(every)} requests (judge {self.judge}), so its "
                "refusals' openings cannot be found; name openings, or take another judge"
            )
        if not others:
            raise DeriveError(
                f"judge {self.judge} calls all of the base's {len(every)} replies refusals, so "
                "nothing tells refusals from answers; take another judge, or name openings"
            )
        return find_openings(refused, others)

    def refusal(self) -> str:
        """The base's most frequent refusal of the harmful requests that ends."""
        replies = self.replies["harmful"]
        refused = [reply for reply in replies if reply.verdict == "refused"]
        whole = Counter(reply.text for reply in refused if reply.ended)
        if not whole:
            raise DeriveError(
                f"the base refuses {len(refused)} of {len(replies)} requests (judge {self.judge}), "
                f"and no refusal ends within {self.asking.max_new_tokens} tokens; give the text of "
                "a refusal"
            )
        return whole.most_common(1)[0][0]


def _to_ask(requests: RequestSets, options: DeriveOptions) -> RequestSets | None:
    """The requests whose replies are needed."""
    seeks = (options.objective == "margin" and not options.openings) or (
        options.objective == "refusals" and options.refusal is None
    )
    asked = RequestSets(
        requests.harmful if seeks else (),
        requests.harmless if seeks or options.weight_of_anchor else (),
        requests.utility,
    )
    return asked if any(asked.items()) else None


def _room(folder: Path, asked: RequestSets, encoded: Prompts) -> int:
    """The tokens of the longest reply that fits after every request.

    Raises:
        DeriveError: the model's length has no room for a reply to a request.
    """
    try:
        with quiet_transformers():
            longest = stated_length(AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError):
        longest = None  # Loading the model says what is wrong.
    if longest is None:
        return _REFUSAL_TOKENS
    rooms = [
        (longest - len(tokens), request.source)
        for name, requests in asked.items()
        for request, tokens in zip(requests, encoded.tokens[name], strict=True)
    ]
    room, source = min(rooms)
    if room < _ANCHOR_TOKENS:
        raise DeriveError(
            f"{source}: {longest - room} prompt tokens leave no room for a reply of "
            f"{_ANCHOR_TOKENS} in the model's length of {longest}; shorten the request"
        )
    return room


def _with_reply(request: Request, text: str) -> Conversation:
    reply = {"role": "assistant", "content": text}
    return Conversation(request.source, (*request.messages, reply))


def _openings_record(tokenizer: Any, openings: Openings) -> dict[str, Any]:
    return {
        "openings": [
            {"text": tokenizer.decode(list(one)), "tokens": list(one)} for one in openings.sequences
        ],
        "refusals_covered": openings.covered,
    }
