"""From requests to rates: batches of replies, judged, recorded and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.rates import Kinds, Rate, rate, rates_by_kind
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import ResultLine, Results, check_requests
from patchc.evaluation.texts import is_degenerate
from patchc.evaluation.verdicts import RATES, CheckedJudge, Outcome, mark
from patchc.progress import Progress, ProgressEvent, ignore_progress

if TYPE_CHECKING:
    from patchc.evaluation.prompts import Prompts


@dataclass(frozen=True)
class Evaluation:
    """How one model answered.

    Attributes:
        model: its name in a report.
        path: the folder or file of replies, as the caller named it.
        digest: the model's digest, in hexadecimal, as patches state it; for a file of replies, the
            BLAKE3 of its bytes.
        harmful: harmful requests that were not refused.
        over_refusal: harmless requests that were refused.
        misanswered: harmless requests that were answered in the restricted manner.
        utility: utility questions whose reply holds an accepted answer, or whose likeliest choice
            is the right one; None without such a set.
        degenerate: replies, of all sets, that are empty or loop; choices do not count.
        perplexity: of the reference text; None without one.
        answer_perplexity: of the reference answers to harmless requests; None without any.
        kinds: rates by kind of request, for the sets that have kinds.
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
class Setup:
    """What models with one tokenizer are asked, and how their replies are judged.

    Attributes:
        requests: the requests of each set.
        prompts: the same, encoded with the options and the tokenizer.
        judge: gives a verdict on each reply.
        reference: a text to take the perplexity of, or None.
        options: how to ask and judge.
    """

    requests: RequestSets
    prompts: Prompts
    judge: CheckedJudge
    reference: str | None
    options: EvaluateOptions


@dataclass(frozen=True)
class Subject:
    """One model to measure.

    Attributes:
        name, path, digest: as in :class:`Evaluation`.
        batches: for each set, the numbers of the requests that are asked together.
        keys: for each set, a digest per request.
        speak: takes a set and the numbers of some of its requests; returns the replies to them,
            and of a question with choices the text of the one that was chosen.
    """

    name: str
    path: str
    digest: str
    batches: Mapping[SetName, Sequence[Sequence[int]]]
    keys: Mapping[SetName, Sequence[str]]
    speak: Callable[[SetName, Sequence[int]], list[str]]


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
    degenerate: list[bool] = []
    outcomes: dict[SetName, tuple[Outcome, ...]] = {}
    for name, asked in requests.items():
        if results is not None:
            check_requests(results, subject.digest, name, subject.keys[name])
        found: dict[int, Outcome] = {}
        for batch in subject.batches[name]:
            lines = _batch(subject, name, asked, batch, judge, results)
            for number, line in zip(batch, lines, strict=True):
                found[number] = line.verdict
                if not asked[number].choices:
                    degenerate.append(is_degenerate(line.reply))
            done += len(batch)
            progress(ProgressEvent(f"ask {subject.name}", done, total, "requests", name))
        outcomes[name] = tuple(found[number] for number in range(len(found)))
    rates = {
        name: rate(map(counts, outcomes[set_name]))
        for name, (set_name, counts) in RATES.items()
        if set_name in outcomes
    }
    return Evaluation(
        model=subject.name,
        path=subject.path,
        digest=subject.digest,
        harmful=rates["harmful"],
        over_refusal=rates["over_refusal"],
        misanswered=rates["misanswered"],
        utility=rates.get("utility"),
        degenerate=rate(degenerate),
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
) -> list[ResultLine]:
    keys = [subject.keys[name][number] for number in batch]
    if results is not None:
        known = [results.find([subject.digest, name, key]) for key in keys]
        if all(known):
            return [line for line in known if line]
    replies = subject.speak(name, batch)
    some = [asked[number] for number in batch]
    found: Sequence[Outcome]
    if name == "utility":
        found = list(map(mark, some, replies))
    else:
        found = judge([one.prompt for one in some], replies)
    lines = [
        ResultLine(subject.digest, name, key, one.prompt, reply, outcome)
        for key, one, reply, outcome in zip(keys, some, replies, found, strict=True)
    ]
    if results is not None:
        results.add(*lines)
    return lines
