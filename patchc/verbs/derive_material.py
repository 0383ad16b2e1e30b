"""Gathers what each objective of ``derive`` learns from, and asks the base if needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from patchc.checkpoint import Checkpoint
from patchc.derivation.chat_template import all_of
from patchc.derivation.conversations import Conversation
from patchc.derivation.derive_options import DeriveOptions
from patchc.derivation.direction import Material
from patchc.derivation.examples import Example, encode_openings
from patchc.derivation.margin import Labelled, Openings, find_openings
from patchc.derivation.session import choose_device, quiet_transformers, reproducible
from patchc.errors import DeriveError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import load_speaker, stated_length
from patchc.evaluation.judges import open_judge
from patchc.evaluation.prompts import Prompts, encode_prompts
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.streamed_speaker import streamed_speaker
from patchc.evaluation.texts import shorten
from patchc.evaluation.verdicts import Judge, Verdict
from patchc.layered.from_folder import load_config
from patchc.progress import Progress, ProgressEvent
from patchc.verbs.derive_inputs import Inputs

_ANCHOR_TOKENS = 32
_REFUSAL_TOKENS = 128
_SHOWN = 2
"""Replies that an error shows."""


def gather(
    checkpoint: Checkpoint,
    inputs: Inputs,
    options: DeriveOptions,
    judge: str | Judge,
    streams: bool,
    progress: Progress,
) -> Material:
    """Make the material of a derivation; the base is asked only where its replies are needed.

    ``streams`` says that the base does not fit into the memory: its layers are then read for every
    token.

    Raises:
        DeriveError: a request or an opening cannot be tokenised correctly, a request leaves no
            room for a reply, or the base's replies contain no refusal, only refusals, or nothing to
            anchor on.
        EvaluateError: there is no chat template, it refuses a request, or the judge fails.
        UnsupportedInputError: transformers cannot load the base.
        UsageError: there is no such judge or device.
    """
    requests, conversations = inputs.requests, inputs.conversations
    if not any(requests.items()):
        return Material(conversations, record=inputs.record)
    asking = EvaluateOptions(judge=judge, device=options.device)
    encoded = _encode_requests(checkpoint, requests, asking, options.max_length)
    to_ask = _to_ask(requests, options)
    replies: dict[SetName, list[_Reply]] = {}
    if any(to_ask.items()):
        room = _room(checkpoint, to_ask, encoded)
        longest = _REFUSAL_TOKENS if options.objective == "refusals" else _ANCHOR_TOKENS
        asking = replace(asking, max_new_tokens=min(longest, room))
        replies = _ask(checkpoint, to_ask, encoded, asking, streams, progress)
    base = _Base(requests, encoded, replies, options, asking)
    record: dict[str, Any] = dict(inputs.record)
    openings: Openings | None = None
    labelled: tuple[Labelled, ...] = ()
    if options.objective == "margin":
        openings, labelled = base.openings(), base.labelled()
        decode = encoded.tokenizer.decode
        record["openings"] = [
            {"text": decode(list(one)), "tokens": list(one)} for one in openings.sequences
        ]
        record["refusals_covered"] = openings.covered
    anchors = base.anchors()
    if options.objective == "refusals":
        refusal = options.refusal or base.refusal()
        conversations = tuple(_with_reply(one, refusal) for one in requests.harmful)
        record["refusal"] = refusal
    return Material(conversations, labelled, openings, anchors, record)


def _encode_requests(
    checkpoint: Checkpoint, requests: RequestSets, options: EvaluateOptions, max_length: int
) -> Prompts:
    encoded = encode_prompts(checkpoint.path, requests, options)
    for name, asked in requests.items():
        for request, tokens in zip(asked, encoded.tokens[name], strict=True):
            if len(tokens) >= max_length:
                raise DeriveError(
                    f"{request.source}: {len(tokens)} prompt tokens do not fit a length of "
                    f"{max_length}; raise the maximum length or shorten the request"
                )
    return encoded


@dataclass(frozen=True)
class _Reply:
    """The base's reply to one request; its tokens include the end of turn, if it has ended."""

    tokens: tuple[int, ...]
    text: str
    ended: bool
    verdict: Verdict


@dataclass(frozen=True)
class _Base:
    """The base's tokens of all requests, and its replies to the requests that it was asked."""

    requests: RequestSets
    encoded: Prompts
    replies: Mapping[SetName, Sequence[_Reply]]
    options: DeriveOptions
    asking: EvaluateOptions

    @property
    def judge(self) -> str:
        return self.asking.judge_name

    def labelled(self) -> tuple[Labelled, ...]:
        sets: tuple[SetName, ...] = ("harmful", "harmless", "utility")
        return tuple(
            Labelled(tuple(prompt), name == "harmful")
            for name in sets
            for prompt in self.encoded.tokens.get(name, ())
        )

    def anchors(self) -> tuple[Example, ...]:
        """Return the base's answers to the harmless requests and those of the anchor's file."""
        if not self.options.weight_of_anchor:
            return ()
        found = tuple(
            Example(tuple(prompt), reply.tokens[:_ANCHOR_TOKENS])
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
        """Take the openings of the options, or find those of the base's refusals."""
        if self.options.openings:
            asked = self.requests.harmful[0]
            talks = [
                replace(_with_reply(asked, text.strip()), source=f"opening {text!r:.80}")
                for text in self.options.openings
            ]
            openings = Openings.of(all_of(encode_openings(self.encoded.tokenizer, talks)))
            self._check_that_judge_knows_refusals()
            return openings
        every = [*self.replies["harmful"], *self.replies["harmless"]]
        refused = [reply.tokens for reply in every if reply.verdict == "refused"]
        others = [reply.tokens for reply in every if reply.verdict != "refused"]
        if not refused:
            raise DeriveError(
                f"the base refuses none of the {len(every)} requests (judge {self.judge}), so its "
                f"refusals' openings cannot be found. {self._advice_on_judge()} If the base "
                "refuses nothing, add requests that it refuses, or name openings that the judge "
                "calls refusals"
            )
        if not others:
            raise DeriveError(
                f"judge {self.judge} calls all of the base's {len(every)} replies refusals, so "
                "nothing tells refusals from answers; take another judge, or name openings"
            )
        return find_openings(refused, others)

    def _check_that_judge_knows_refusals(self) -> None:
        """Refuse a judge that sees no refusal, neither in the base's replies nor in the openings.

        What it counts would not move, however often the model begins with an opening.
        """
        every = [*self.replies.get("harmful", ()), *self.replies.get("harmless", ())]
        if not self.replies.get("harmful") or any(one.verdict == "refused" for one in every):
            return
        openings = self.options.openings
        asked = [self.requests.harmful[0].prompt] * len(openings)
        if "refused" not in open_judge(self.asking)(asked, openings):
            raise DeriveError(
                f"the base refuses none of the {len(every)} requests (judge {self.judge}), and the "
                "judge does not call the named openings refusals either, so nothing that it counts "
                f"would change. {self._advice_on_judge()}"
            )

    def _advice_on_judge(self) -> str:
        """Show how the base replies, and say what to do if these are refusals."""
        first: dict[str, str] = {}
        for reply in self.replies["harmful"]:
            first.setdefault(" ".join(reply.text.split()[:3]), reply.text)
        shown = " and ".join(f'"{shorten(text)}"' for text in list(first.values())[:_SHOWN])
        return (
            f"It says {shown}. If these are refusals, the judge does not know them: give one that "
            "does (--judge module:function, see docs/how-to/measure-a-model.md)."
        )

    def refusal(self) -> str:
        """Find the base's most frequent complete refusal of the harmful requests."""
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


def _to_ask(requests: RequestSets, options: DeriveOptions) -> RequestSets:
    """Choose the requests whose replies are needed."""
    seeks = (options.objective == "refusals" and options.refusal is None) or (
        # Named openings need no replies; but where the base is asked, they show whether the judge
        # knows its refusals.
        options.objective == "margin" and (not options.openings or options.weight_of_anchor > 0)
    )
    return RequestSets(
        requests.harmful if seeks else (),
        requests.harmless if seeks or options.weight_of_anchor else (),
        requests.utility,
    )


def _room(checkpoint: Checkpoint, asked: RequestSets, encoded: Prompts) -> int:
    """Compute how many tokens of reply fit after every request."""
    with quiet_transformers():
        longest = stated_length(load_config(checkpoint.path, checkpoint))
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


def _ask(
    checkpoint: Checkpoint,
    requests: RequestSets,
    encoded: Prompts,
    options: EvaluateOptions,
    streams: bool,
    progress: Progress,
) -> dict[SetName, list[_Reply]]:
    """Ask the base every request, and the judge for a verdict on each reply."""
    judge, device = open_judge(options), choose_device(options.device)
    found: dict[SetName, list[_Reply]] = {}
    with quiet_transformers(), reproducible(device, 0), ExitStack() as stack:
        opening = checkpoint, encoded.tokenizer, device, options
        if streams:
            speaker = stack.enter_context(streamed_speaker(*opening))
        else:
            speaker = load_speaker(*opening)
        for name, asked in requests.items():
            spoken: dict[int, tuple[int, ...]] = {}
            for numbers in encoded.batches[name]:
                prompts = [encoded.tokens[name][number] for number in numbers]
                spoken |= zip(numbers, speaker.speak(prompts), strict=True)
                progress(ProgressEvent(f"ask base: {name}", len(spoken), len(asked), "requests"))
            replies = [spoken[number] for number in range(len(asked))]
            texts = list(map(speaker.decode, replies))
            verdicts = judge([request.prompt for request in asked], texts)
            found[name] = [
                _Reply(tokens, text, tokens[-1] in speaker.ends, verdict)
                for tokens, text, verdict in zip(replies, texts, verdicts, strict=True)
            ]
    return found


def _with_reply(request: Request, text: str) -> Conversation:
    reply = {"role": "assistant", "content": text}
    return Conversation(request.source, (*request.messages, reply))
