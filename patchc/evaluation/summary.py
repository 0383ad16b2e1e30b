"""Summaries of measured results, to be stored in patches: rates and digests, and no reply.

They are made of what ``evaluate`` and ``fix`` write, and read from patches as a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.journal import is_header
from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.evaluation.records import read_text
from patchc.evaluation.results import RESULTS
from patchc.evaluation.verdicts import OUTCOMES, RATES
from patchc.json_values import json_values
from patchc.sides import Side
from patchc.strict_json import UNFIT, parse_json, why_unfit

RATE_NAMES = (*RATES, "degenerate")
_PERPLEXITIES = ("perplexity", "answer_perplexity")
_DIGEST = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
_MOST_MODELS = 16
_MOST_TEXT = 200
_MOST_REPORT = 64 << 20


@dataclass(frozen=True)
class ModelSummary:
    """The figures of one model.

    Attributes:
        model: its name in the report.
        digest: its digest in hexadecimal; empty if the report does not have it.
        side: "base" or "result" of the patch; None if that is not known.
        rates: its rates, by name.
        perplexities: its perplexities, by name.
    """

    model: str
    digest: str
    side: Side | None
    rates: Mapping[str, Rate]
    perplexities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultsSummary:
    """What was measured with a patch and without.

    Attributes:
        source: what wrote the file that it was made of.
        file: the BLAKE3 of that file, in hexadecimal.
        judge: the judge's name; empty if the file does not have it.
        data: digests of what was asked, by name, in hexadecimal.
        models: the figures of each model.
        changes: how the rates of the patched model differ from the base's.
    """

    source: Literal["evaluate", "fix", "results"]
    file: str
    judge: str
    data: Mapping[str, str]
    models: tuple[ModelSummary, ...]
    changes: Mapping[str, Change] = field(default_factory=dict)

    def of_patch(self, base: str, result: str) -> ResultsSummary | None:
        """Keep the figures of a patch's base and result, by their digests; None without the result.

        The figures of other models are left out, and changes that are not from this base to this
        result. A result without a digest goes by its base.
        """
        sides: dict[str, Side] = {base: "base", result: "result"}
        own = [one for one in self.models if one.digest in ("", *sides)]
        models = tuple(replace(one, side=sides.get(one.digest, one.side)) for one in own)
        digests = {one.digest for one in models}
        if result not in digests and not {"", base} <= digests:
            return None
        changes = self.changes if models == tuple(own) else {}
        return replace(self, models=models, changes=changes)

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for :func:`parse_summary`."""
        content: dict[str, Any] = json_values(self)
        return content


def read_summary(path: Path) -> ResultsSummary:
    """Read the report of ``evaluate --json``, ``report.json`` of ``fix``, or a results file.

    Raises:
        EvaluateError: the file cannot be read, or is none of these; names it.
    """
    text = read_text(path, "utf-8")
    digest = blake3(text.encode()).hexdigest()
    try:
        return _summarise(text, digest)
    except UNFIT as error:
        raise EvaluateError(
            f"{path}: no results that can be summarised ({why_unfit(error)}); name what "
            "`patchc evaluate --json` printed, its results file, or report.json of `patchc fix`"
        ) from error


def parse_summary(content: Any) -> ResultsSummary | None:
    """Read a summary from a patch's metadata; None if it is not one."""
    try:
        return ResultsSummary(
            content["source"] if content["source"] in ("evaluate", "fix") else "results",
            _digest(content["file"]),
            _text(content["judge"]),
            _digests(content["data"]),
            tuple(
                _model(one, one["rates"], one["perplexities"]) for one in _few(content["models"])
            ),
            _changes(content["changes"]),
        )
    except UNFIT:
        return None


def _summarise(text: str, file: str) -> ResultsSummary:
    first, _, rest = text.partition("\n")
    try:
        header = parse_json(first)
    except ValueError:
        header = None
    if is_header(header, RESULTS):
        return _of_lines(header["inputs"], rest.removesuffix("\n").split("\n"), file)
    if len(text) > _MOST_REPORT:
        raise ValueError(f"it has more than {_MOST_REPORT:,} characters")
    content = parse_json(text)
    return _of_fix(content, file) if "development" in content else _of_report(content, file)


def _of_report(content: Any, file: str) -> ResultsSummary:
    given = _few(content["models"])
    patched = [one["model"] for one in given if one["patch"]]
    models = []
    for one in given:
        side: Side | None = "result" if one["patch"] else "base" if patched else None
        if content.get("turns") and len(patched) > 1:
            side = None  # of one of the patches, which only digests tell
        models.append(_model({**one, "side": side}, one, one))
    changes = _changes(content["changes"][patched[0]]) if len(patched) == 1 else {}
    data = _digests(content.get("data", {}))
    return ResultsSummary("evaluate", file, _text(content["judge"]), data, tuple(models), changes)


def _of_fix(content: Any, file: str) -> ResultsSummary:
    test = content["test"]
    if test is None:
        raise ValueError("there is no patch, and so no test")
    base = {"model": "base", "digest": content["base_digest"], "side": "base"}
    result = content.get("result_digest", "")  # reports of earlier versions have none
    patched = {"model": "patched", "digest": result, "side": "result"}
    models = (
        _model(base, test["base"], test["base"]),
        _model(patched, test["patched"], test["patched"]),
    )
    data = _digests(content.get("data", {}))
    changes = _changes(test["changes"])
    return ResultsSummary("fix", file, _text(content["judge"]), data, models, changes)


def _of_lines(inputs: Any, lines: Iterable[str], file: str) -> ResultsSummary:
    counts: dict[str, dict[str, list[int]]] = {}
    for number, text in enumerate(lines, start=2):
        try:
            line = parse_json(text)
            found = counts.setdefault(_digest(line["model"]), {})
            if line["verdict"] not in OUTCOMES[line["set"]]:
                raise ValueError(f"{line['verdict']!r:.40} is no verdict on {line['set']} requests")
        except UNFIT as error:
            raise ValueError(f"line {number}: {why_unfit(error)}") from error
        for name, (set_name, is_counted) in RATES.items():
            if set_name == line["set"]:
                rate = found.setdefault(name, [0, 0])
                rate[0] += is_counted(line["verdict"])
                rate[1] += 1
    models = [
        ModelSummary("", digest, None, {name: Rate(*rate) for name, rate in found.items()})
        for digest, found in counts.items()
    ]
    asked = [{name: rate.total for name, rate in one.rates.items()} for one in models]
    if any(one != asked[0] for one in asked):
        raise ValueError("its models were not asked the same requests; finish that evaluation")
    # Earlier versions stated one digest of requests, options and judge.
    named = inputs if isinstance(inputs, dict) else {"requests": inputs, "judge": ""}
    data = {"evaluation": _digest(named["requests"])}
    return ResultsSummary("results", file, _text(named["judge"]), data, tuple(_few(models)))


def _model(facts: Any, rates: Any, perplexities: Any) -> ModelSummary:
    side = facts["side"]
    if side not in ("base", "result", None):
        raise ValueError("a model is on no side")
    return ModelSummary(
        _text(facts["model"]),
        "" if facts["digest"] == "" else _digest(facts["digest"]),
        side,
        _named(RATE_NAMES, rates, lambda one: Rate(_count(one["hits"]), _count(one["total"]))),
        _named(_PERPLEXITIES, perplexities, float),
    )


def _changes(content: Any) -> dict[str, Change]:
    return _named(tuple(RATES), content, _change)


def _change(content: Any) -> Change:
    figures = [float(content[name]) for name in ("difference", "low", "high", "p_value")]
    if not all(-1 <= one <= 1 for one in figures):
        raise ValueError("a change is not between -1 and 1")
    return Change(*figures)


def _named(names: Iterable[str], content: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    given = {name: content.get(name) for name in names}
    return {name: read(one) for name, one in given.items() if one is not None}


def _digests(content: Any) -> dict[str, str]:
    return {_text(name): _digest(one) for name, one in _few(content.items())}


def _few(items: Iterable[Any]) -> list[Any]:
    found = list(items)
    if len(found) > _MOST_MODELS:
        raise ValueError(f"there are more than {_MOST_MODELS} models or data sets")
    return found


def _digest(value: Any) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("a digest is malformed")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT or not value.isprintable():
        raise ValueError(f"a name is no line of at most {_MOST_TEXT} characters")
    return value


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("a count is no whole number")
    return value
