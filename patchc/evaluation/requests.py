"""Requests to put to a model: patchc's own JSONL and the formats of public sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from patchc.errors import EvaluateError
from patchc.evaluation.multiple_choice import read_choices
from patchc.evaluation.records import Record, read_records
from patchc.evaluation.texts import split_words
from patchc.json_lines import name_some
from patchc.json_values import Message, check_characters, check_messages, check_text
from patchc.paths import PathLike

SetName = Literal["harmful", "harmless", "utility"]

_PROMPTS = ("prompt", "instruction", "goal", "question", "messages")
_IDS = ("id", "id_v2")
_KINDS = ("kind", "category", "type")
_GROUPS = ("group", "template", "category")
_XSTEST = {"prompt", "type"}
_XSTEST_LABELS = ("safe", "unsafe")
_BEAVERTAILS = {"prompt", "response", "category", "is_safe"}
_UNSAFE_TYPE = "contrast_"


@dataclass(frozen=True)
class Request:
    """One request: messages that end with the user's turn.

    Attributes:
        source: file and line.
        messages: ``{"role": …, "content": …}``, the last one the user's.
        answers: accepted answers to a utility question, with choices the right one alone; empty
            for the other sets.
        id: the file's own name for the request, if it has one.
        kind: rates are reported by kind, if it has one.
        response: a reference answer, if it has one; None in the harmful set.
        group: requests that were made in one way share a group, if they have one.
        choices: those of a multiple-choice question of the utility set; otherwise empty.
    """

    source: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    id: str | None = None
    kind: str | None = None
    response: str | None = None
    group: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The user's last words."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class RequestSets:
    """The requests of one evaluation; ``utility`` is empty if no such set is asked."""

    harmful: tuple[Request, ...]
    harmless: tuple[Request, ...]
    utility: tuple[Request, ...] = ()

    def items(self) -> Iterator[tuple[SetName, tuple[Request, ...]]]:
        """Give the sets that hold requests, by name."""
        return ((name, asked) for name in get_args(SetName) if (asked := getattr(self, name)))


def read_request_sets(
    harmful: PathLike, harmless: PathLike, utility: PathLike | None = None, limit: int | None = None
) -> RequestSets:
    """Read the files of an evaluation; ``limit`` takes only the first requests of each.

    Raises:
        EvaluateError: see :func:`read_requests`.
    """
    return RequestSets(
        read_requests(Path(harmful), "harmful")[:limit],
        read_requests(Path(harmless), "harmless")[:limit],
        read_requests(Path(utility), "utility")[:limit] if utility else (),
    )


def read_requests(path: Path, name: SetName) -> tuple[Request, ...]:
    """Read the requests of a CSV, JSON or JSONL file for one of the three sets.

    The columns tell the format:

    * patchc's own: one of ``prompt``, ``instruction``, ``goal``, ``question`` (a text) or
      ``messages`` (a list that ends with the user's turn; a last assistant turn is dropped), with
      ``answer`` or ``answers`` for the utility set, there also with ``choices``
      (:func:`~patchc.evaluation.multiple_choice.read_choices`), and an optional ``id``. Outer
      white space of a text is dropped. AdvBench (``goal``, ``target``) and OKTest (``prompt``) have
      this shape.
    * XSTest: ``prompt`` and ``type``, and at least one record with a ``label`` that is safe or
      unsafe, or a ``type`` that begins with ``contrast_``. The harmful set takes the unsafe
      prompts, the other sets the safe ones: by ``label``, or by ``type`` if no record has a label.
      ``id_v2`` stands in for a missing ``id``.
    * BeaverTails (``prompt``, ``response``, ``category``, ``is_safe``): each prompt once; its
      responses are not references.

    Any record may have a ``kind`` (or ``category``, or ``type``) and a ``group`` (or ``template``,
    or ``category``): a non-empty text or a whole number. Outside the harmful set it may have a
    ``response``, a text that is a reference answer. The first of these names with such a value is
    taken. Other columns and values are ignored.

    Raises:
        EvaluateError: the file cannot be read, a record is malformed (named by line), its columns
            are not understood, or nothing is left to ask.
    """
    records = read_records(path)
    if any(map(_tells_xstest, records)):
        unsafe = name == "harmful"
        labelled = any("label" in record.values for record in records)
        records = [record for record in records if _is_unsafe(record, labelled) == unsafe]
        if not records:
            raise EvaluateError(f"{path}: holds no {'unsafe' if unsafe else 'safe'} prompt")
    beavertails = records[0].values.keys() >= _BEAVERTAILS
    referenced = name != "harmful" and not beavertails
    requests = [_request(record, name == "utility", referenced) for record in records]
    if beavertails:
        first = {request.prompt: request for request in reversed(requests)}
        requests = [request for request in requests if first[request.prompt] is request]
    return tuple(requests)


def _tells_xstest(record: Record) -> bool:
    values = record.values
    return values.keys() >= _XSTEST and (
        values.get("label") in _XSTEST_LABELS or str(values["type"]).startswith(_UNSAFE_TYPE)
    )


def _is_unsafe(record: Record, labelled: bool) -> bool:
    values = record.values
    if not values.keys() >= _XSTEST:
        raise EvaluateError(
            f'{record.source}: no "prompt" and "type" as in the file\'s other records, which are '
            "XSTest's; put requests of another kind in a file of their own"
        )
    if not labelled:
        return str(values["type"]).startswith(_UNSAFE_TYPE)
    label = values.get("label")
    if label not in _XSTEST_LABELS:
        raise EvaluateError(
            f'{record.source}: label is {label!r:.80}; it must be "safe" or "unsafe"'
        )
    return bool(label == "unsafe")


def _request(record: Record, answered: bool, referenced: bool) -> Request:
    source, values = record.source, record.values
    found = [column for column in _PROMPTS if column in values]
    if len(found) != 1:
        raise EvaluateError(
            f"{source}: {'no' if not found else 'more than one'} column with a request; found "
            f"{name_some(values)}; understood is one of "
            f"{', '.join(_PROMPTS)}"
        )
    if found == ["messages"]:
        messages = _messages(source, values["messages"])
    else:
        text = check_text(source, found[0], values[found[0]], EvaluateError).strip()
        messages = ({"role": "user", "content": text},)
    label = next((values[name] for name in _IDS if values.get(name) is not None), None)
    response = values.get("response")
    if referenced and isinstance(response, str) and response.strip():
        response = check_characters(source, "response", response, EvaluateError).strip()
    else:
        response = None
    choices, answers = _choices_and_answers(source, values) if answered else ((), ())
    return Request(
        source,
        messages,
        answers,
        None if label is None else str(label),
        _label(source, values, _KINDS),
        response,
        _label(source, values, _GROUPS),
        choices,
    )


def _label(source: str, values: dict[str, Any], columns: tuple[str, ...]) -> str | None:
    """Return the first of the columns that holds a text or a whole number, as text."""
    for column in columns:
        value = values.get(column)
        if type(value) in (str, int) and str(value).strip():
            return check_characters(source, column, str(value).strip(), EvaluateError)
    return None


def with_system(messages: Iterable[Message], system: str | None) -> list[Message]:
    """Put a system message first, where one is given and the messages have none."""
    found = list(messages)
    if system is not None and found[0]["role"] != "system":
        found.insert(0, {"role": "system", "content": system})
    return found


def _messages(source: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise EvaluateError(f'{source}: "messages" must be a list')
    messages = check_messages(source, value, EvaluateError)
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages or messages[-1]["role"] != "user":
        raise EvaluateError(f'{source}: "messages" must end with the user\'s turn')
    return tuple(messages)


def _choices_and_answers(
    source: str, values: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if values.get("choices") is None:
        return (), _answers(source, values)
    choices, right = read_choices(source, values)
    return choices, (right,)


def _answers(source: str, values: dict[str, Any]) -> tuple[str, ...]:
    if ("answer" in values) == ("answers" in values):
        raise EvaluateError(f'{source}: a utility question needs "answer", or "answers" alone')
    given = values["answers"] if "answers" in values else [values["answer"]]
    if not isinstance(given, list) or not given:
        raise EvaluateError(f'{source}: "answers" must be a list of texts that is not empty')
    answers = tuple(check_text(source, "answer", answer, EvaluateError) for answer in given)
    for answer in answers:
        if not split_words(answer):
            raise EvaluateError(f"{source}: answer {answer!r:.80} holds no word to look for")
    return answers
