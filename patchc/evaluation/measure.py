"""From requests to rates: batches of replies, judged, recorded and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from patchc.evaluation.coherence import is_degenerate
from patchc.evaluation.comparable_text import contains_answer
from patchc.evaluation.intervals import Rate, rate
from patchc.evaluation.kinds import Kinds, rates_by_kind
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import ResultLine, Results
from patchc.evaluation.verdicts import RATES, CheckedJudge, Outcome, Outcomes, RateName
from patchc.progress import Progress, ProgressEvent, ignore_progress

Speak = Callable[[SetName, Sequence[int]], list[str]]
"""Takes a set and the numbers of some of its requests; gives the replies to them."""


@dataclass(frozen=True)
class Evaluation:
    """How one model answered.

    Attributes:
        model: its name in a report.
        path: the folder, or the file of replies, as it was named.
        digest: the model's digest, in hexadecimal, as patches state it; of a file of replies, the
            BLAKE3 of its bytes.
        harmful: harmful requests that were not refused.
        over_refusal: harmless requests that were refused.
        misanswered: harmless requests that were answered in the restricted manner.
        utility: utility questions whose reply holds an accepted answer; None without such a set.
        degenerate: replies, of all sets, that are empty or loop.
        perplexity: of the reference text; None without one.
        answer_perplexity: of the reference answers to harmless requests; None without any.
        kinds: rates by kind of request, of the sets that have kinds.
        outcomes: what the reply to each request is counted as, by set, in the file's order.
        patch: the patch that was applied first, or None.
        lm_eval: figures of lm-evaluation-harness, by task and metric.
    """

    model: str
    path: str
    digest: str
    harmful: Rate
    over_refusal: Rate
    misanswered: Rate
    utility: Rate | None
    degenerate: Rate
    perplexity: float | None = None
    answer_perplexity: float | None = None
    kinds: Kinds = field(default_factory=dict)
    outcomes: dict[SetName, tuple[Outcome, ...]] = field(
        default_factory=dict, metadata={"json": False}
    )
    patch: str | None = None
    lm_eval: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """One model to measure.

    Attributes:
        name, path, digest: as in :class:`Evaluation`.
        batches: of each set, the numbers of the requests that are asked together.
        keys: of each set, a digest for each request.
        speak: asks the model.
    """

    name: str
    path: str
    digest: str
    batches: Mapping[SetName, Sequence[Sequence[int]]]
    keys: Mapping[SetName, Sequence[str]]
    speak: Speak


@dataclass(frozen=True)
class _Judged:
    reply: str
    outcome: Outcome


def measure(
    subject: Subject,
    requests: RequestSets,
    judge: CheckedJudge,
    results: Results | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Ask all requests, judge the replies, and count.

    With ``results``, batches that it holds are not asked again, and every new batch is added.

    Raises:
        EvaluateError: the judge fails, or ``results`` belongs to another evaluation.
        StorageError: ``results`` cannot be written.
    """
    total = sum(len(asked) for _, asked in requests.items())
    done = 0
    judged: dict[SetName, dict[int, _Judged]] = {}
    for name, asked in requests.items():
        if results is not None:
            results.expect(subject.digest, name, subject.keys[name])
        judged[name] = {}
        for batch in subject.batches[name]:
            judged[name] |= _batch(subject, name, asked, batch, judge, results)
            done += len(batch)
            progress(ProgressEvent(f"ask {subject.name}", done, total, "requests", name))
    everything = [one.reply for replies in judged.values() for one in replies.values()]
    outcomes = {
        name: tuple(replies[number].outcome for number in range(len(replies)))
        for name, replies in judged.items()
    }
    return Evaluation(
        model=subject.name,
        path=subject.path,
        digest=subject.digest,
        harmful=_rate(outcomes, "harmful"),
        over_refusal=_rate(outcomes, "over_refusal"),
        misanswered=_rate(outcomes, "misanswered"),
        utility=_rate(outcomes, "utility") if "utility" in outcomes else None,
        degenerate=rate(map(is_degenerate, everything)),
        kinds=rates_by_kind(requests, outcomes),
        outcomes=outcomes,
    )


def _batch(
    subject: Subject,
    name: SetName,
    asked: Sequence[Request],
    batch: Sequence[int],
    judge: CheckedJudge,
    results: Results | None,
) -> dict[int, _Judged]:
    keys = [subject.keys[name][number] for number in batch]
    if results is not None:
        known = [results.find(subject.digest, name, key) for key in keys]
        if all(known):
            return {
                number: _Judged(line.reply, line.verdict)
                for number, line in zip(batch, known, strict=True)
                if line
            }
    replies = subject.speak(name, batch)
    found = _outcomes(name, [asked[number] for number in batch], replies, judge)
    if results is not None:
        results.add(
            [
                ResultLine(subject.digest, name, key, asked[number].prompt, reply, outcome)
                for key, number, reply, outcome in zip(keys, batch, replies, found, strict=True)
            ]
        )
    return {
        number: _Judged(reply, outcome)
        for number, reply, outcome in zip(batch, replies, found, strict=True)
    }


def _outcomes(
    name: SetName, asked: Sequence[Request], replies: Sequence[str], judge: CheckedJudge
) -> Sequence[Outcome]:
    if name == "utility":
        return [
            "right" if contains_answer(reply, request.answers) else "wrong"
            for request, reply in zip(asked, replies, strict=True)
        ]
    return judge([request.prompt for request in asked], replies)


def _rate(outcomes: Outcomes, name: RateName) -> Rate:
    part, counts = RATES[name]
    return rate(map(counts, outcomes[part]))
