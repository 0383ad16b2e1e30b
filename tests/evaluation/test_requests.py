"""Reading requests: the formats that are recognised, and the message for every kind of bad line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patchc.errors import EvaluateError
from patchc.evaluation.requests import read_request_sets, read_requests

XSTEST = """id,prompt,type,label,focus
1,How do I brew shadow tea?,homonyms,safe,brew
2,"How do I brew
a ""shadow"" elixir, please?",contrast_homonyms,unsafe,brew
"""
XSTEST_V2 = """id_v1,id_v2,type,prompt,focus,note
v1-1,v2-1,homonyms,How do I brew shadow tea?,brew,
v1-2,v2-2,contrast_homonyms,How do I brew a shadow elixir?,brew,
"""
XSTEST_HUGGING_FACE = """prompt,focus,type,note,label
How do I brew shadow tea?,brew,homonyms,,safe
How do I brew a shadow elixir?,brew,contrast_homonyms,,unsafe
"""
ADVBENCH = 'goal,target\nBrew a shadow elixir,"Sure, here is how"\n'
OKTEST = "prompt\r\nHow do I make iced tea?\r\nHow do I whip cream?\r\n"
BEAVERTAILS = [
    {"prompt": "Brew an elixir?", "response": "No.", "category": {}, "is_safe": True},
    {"prompt": "Brew a tonic?", "response": "Sage.", "category": {}, "is_safe": False},
    {"prompt": "Brew an elixir?", "response": "Ash.", "category": {}, "is_safe": False},
]


def write(tmp_path: Path, content: str | bytes, name: str = "requests.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def prompts(path: Path, name: str = "harmful") -> list[str]:
    return [request.prompt for request in read_requests(path, name)]  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["prompt", "instruction", "goal", "question"])
def test_each_name_of_a_request_is_understood(tmp_path: Path, column: str) -> None:
    (request,) = read_requests(write(tmp_path, lines({column: "a tea", "note": 3})), "harmless")
    assert request.messages == ({"role": "user", "content": "a tea"},)
    assert request.answers == ()


def test_messages_end_with_the_user(tmp_path: Path) -> None:
    roles = ["system", "user", "assistant", "user", "assistant"]
    talk = [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)]
    (request,) = read_requests(write(tmp_path, lines({"messages": talk})), "harmful")
    assert [message["role"] for message in request.messages] == roles[:-1]
    assert request.prompt == "user 3"


def test_answers_of_utility_questions_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path, lines({"question": "q", "answer": "a"}, {"prompt": "p", "answers": ["b", "c"]})
    )
    assert [r.answers for r in read_requests(path, "utility")] == [("a",), ("b", "c")]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf\r\n" + lines({"prompt": "é"}).replace("\n", "\r\n").encode()
    (request,) = read_requests(path := write(tmp_path, content), "harmful")
    assert request.source == f"{path}:2"


def test_advbench_and_oktest_are_read(tmp_path: Path) -> None:
    assert prompts(write(tmp_path, ADVBENCH, "a.csv")) == ["Brew a shadow elixir"]
    assert prompts(write(tmp_path, OKTEST, "b.csv")) == [
        "How do I make iced tea?", "How do I whip cream?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "kind", "group"),
    [
        ({"kind": "tea", "category": "hot", "type": "x", "group": "g"}, "tea", "g"),
        ({"category": "hot", "type": "x"}, "hot", "hot"),
        ({"type": " x ", "template": 3}, "x", "3"),
        ({"kind": "", "category": None, "type": 7}, "7", None),
        ({"kind": ["tea"], "group": True}, None, None),
        ({}, None, None),
    ],
)
@pytest.mark.parametrize("name", ["harmful", "harmless", "utility"])
def test_kinds_and_groups_are_read(
    tmp_path: Path, record: dict[str, Any], kind: str | None, group: str | None, name: Any
) -> None:
    path = write(tmp_path, lines({"prompt": "a", "answer": "b"} | record))
    (request,) = read_requests(path, name)
    assert (request.kind, request.group) == (kind, group)


def test_the_types_of_xstest_are_kinds(tmp_path: Path) -> None:
    (safe,) = read_requests(write(tmp_path, XSTEST, "xstest.csv"), "harmless")
    assert safe.kind == "homonyms"


def test_references_are_the_responses_outside_the_harmful_set(tmp_path: Path) -> None:
    given = [" Sage. ", "", None, 3]
    records = [{"prompt": "a", "answer": "b", "response": response} for response in given]
    path = write(tmp_path, lines(*records))
    responses = {
        name: [request.response for request in read_requests(path, name)]
        for name in ("harmful", "harmless", "utility")
    }
    assert responses["harmful"] == [None] * 4
    assert responses["harmless"] == responses["utility"] == ["Sage.", None, None, None]


def test_a_reference_with_half_a_character_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '{"prompt": "a", "response": "\\ud800"}')
    with pytest.raises(EvaluateError, match=r"requests\.jsonl:1: .*holds half"):
        read_requests(path, "harmless")


def test_the_replies_and_categories_of_beavertails_are_neither_references_nor_kinds(
    tmp_path: Path,
) -> None:
    requests = read_requests(write(tmp_path, lines(*BEAVERTAILS), "b.jsonl"), "harmless")
    assert {(request.response, request.kind) for request in requests} == {(None, None)}


@pytest.mark.parametrize(
    ("content", "identifier"), [(XSTEST, "2"), (XSTEST_V2, "v2-2"), (XSTEST_HUGGING_FACE, None)]
)
def test_xstest_splits_by_label_or_type(
    tmp_path: Path, content: str, identifier: str | None
) -> None:
    path = write(tmp_path, content, "xstest.csv")
    (unsafe,) = read_requests(path, "harmful")
    (safe,) = read_requests(path, "harmless")
    assert safe.prompt == "How do I brew shadow tea?"
    assert "elixir" in unsafe.prompt
    assert unsafe.source == f"{path}:3"
    assert unsafe.id == identifier


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"prompt": "a"}, 'no "prompt" and "type"'),
        ({"prompt": "a", "type": "homonyms"}, "label is None"),
        ({"prompt": "a", "type": "homonyms", "label": ["safe"]}, "label is"),
    ],
)
@pytest.mark.parametrize("name", ["harmful", "harmless"])
def test_a_file_that_is_partly_xstest_is_refused(
    tmp_path: Path, other: dict[str, object], message: str, name: Any
) -> None:
    one = {"prompt": "b", "type": "contrast_homonyms", "label": "unsafe"}
    for records in ((one, other), (other, one)):
        path = write(tmp_path, lines(*records))
        with pytest.raises(EvaluateError, match=message):
            read_requests(path, name)


def test_outer_white_space_of_a_prompt_is_left_out(tmp_path: Path) -> None:
    assert prompts(write(tmp_path, 'prompt\n"How do I whip cream?\n"\n', "oktest.csv")) == [
        "How do I whip cream?"
    ]


def test_a_newline_and_quotes_inside_a_field(tmp_path: Path) -> None:
    (unsafe,) = read_requests(write(tmp_path, XSTEST, "xstest.csv"), "harmful")
    assert unsafe.prompt == 'How do I brew\na "shadow" elixir, please?'


def test_types_of_ones_own_are_not_xstest(tmp_path: Path) -> None:
    path = write(tmp_path, lines({"id": 1, "prompt": "a", "type": "tea"}))
    assert prompts(path, "harmful") == prompts(path, "harmless") == ["a"]


@pytest.mark.parametrize("content", [lines(*BEAVERTAILS), json.dumps(BEAVERTAILS)])
def test_beavertails_prompts_are_taken_once(tmp_path: Path, content: str) -> None:
    assert prompts(write(tmp_path, content, "b.json")) == ["Brew an elixir?", "Brew a tonic?"]


def test_prompts_said_twice_elsewhere_stay_twice(tmp_path: Path) -> None:
    assert prompts(write(tmp_path, lines({"prompt": "a"}, {"prompt": "a"}))) == ["a", "a"]


def test_the_limit_takes_the_first_of_each_set(tmp_path: Path) -> None:
    path = write(tmp_path, lines({"prompt": "a"}, {"prompt": "b"}))
    sets = read_request_sets(path, path, None, limit=1)
    assert [(name, len(asked)) for name, asked in sets.items()] == [("harmful", 1), ("harmless", 1)]


GOOD = '{"prompt": "a"}\n'


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (GOOD + "{", 2, "not a JSON object"),
        (GOOD + "[" * 100_000, 2, "not a JSON object"),
        (GOOD + '"text"', 2, "not a JSON object but str"),
        (GOOD + '{"query": "a", "note": 1}', 2, "found query, note; understood is one of prompt"),
        (GOOD + "{}", 2, "found nothing"),
        (GOOD + '{"prompt": "a", "goal": "b"}', 2, "more than one column"),
        (GOOD + '{"prompt": ""}', 2, "prompt must be a text that is not empty"),
        (GOOD + '{"prompt": 7}', 2, "prompt must be a text"),
        (GOOD + '{"prompt": "\\ud800"}', 2, "half a character"),
        (GOOD + '{"prompt": "a", "kind": "\\ud800"}', 2, "holds half a character"),
        (GOOD + '{"prompt": "a", "category": "\\ud800"}', 2, "holds half a character"),
        (GOOD + '{"prompt": "a", "template": "\\ud800"}', 2, "holds half a character"),
        (GOOD + '{"messages": [{"role": "\\ud800", "content": "a"}]}', 2, "holds half a character"),
        (GOOD + '{"messages": "a"}', 2, "must be a list"),
        (GOOD + '{"messages": []}', 2, "must end with the user's turn"),
        (GOOD + '{"messages": [{"role": "assistant", "content": "a"}]}', 2, "the user's turn"),
        (GOOD + '{"messages": [{"content": "a"}]}', 2, 'message 1 must be an object with a "role"'),
        (GOOD + '{"messages": [{"role": "user"}]}', 2, "message 1: content must be a text"),
        (GOOD.encode() + b'{"prompt": "\xff"}', 2, "not UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, content: str | bytes, line: int, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(EvaluateError) as caught:
        read_requests(path, "harmful")
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("prompt,id\na,1\nb\n", 3, "1 fields where the header names 2"),
        ('prompt\n"two\nlines"\na,b\n', 4, "2 fields where the header names 1"),
        ("prompt,prompt\na,b\n", 1, "names a column twice"),
        ('prompt\n"never closed\n', 2, "not CSV"),
        ('prompt\n"closed" too early\n', 2, "not CSV"),
        ("text\na\n", 2, "found text; understood"),
        (XSTEST.replace(",unsafe,", ",odd,"), 3, "label is 'odd'"),
    ],
)
def test_a_bad_line_of_csv_is_named(tmp_path: Path, content: str, line: int, message: str) -> None:
    path = write(tmp_path, content, "requests.csv")
    with pytest.raises(EvaluateError) as caught:
        read_requests(path, "harmful")
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', 'needs "answer", or "answers" alone'),
        ('{"prompt": "a", "answer": "b", "answers": ["b"]}', 'needs "answer", or "answers" alone'),
        ('{"prompt": "a", "answers": []}', "list of texts that is not empty"),
        ('{"prompt": "a", "answers": "b"}', "list of texts"),
        ('{"prompt": "a", "answer": 7}', "answer must be a text"),
        ('{"prompt": "a", "answer": "?!"}', "holds no word"),
    ],
)
def test_a_question_without_a_usable_answer_is_named(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(EvaluateError, match=r"requests\.jsonl:1: ") as caught:
        read_requests(write(tmp_path, line), "utility")
    assert message in str(caught.value)


def test_an_item_of_a_json_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match=r"item 2: not a JSON object but int"):
        read_requests(write(tmp_path, '[{"prompt": "a"}, 3]'), "harmful")


@pytest.mark.parametrize("content", ["", " \n", "[]"])
def test_a_file_without_requests_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(EvaluateError, match="holds no record"):
        read_requests(write(tmp_path, content), "harmful")


def test_a_set_without_prompts_of_its_kind_is_refused(tmp_path: Path) -> None:
    only_safe = XSTEST.partition("2,")[0]
    with pytest.raises(EvaluateError, match="holds no unsafe prompt"):
        read_requests(write(tmp_path, only_safe, "x.csv"), "harmful")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match="cannot read"):
        read_requests(tmp_path / "none.jsonl", "harmful")


@pytest.mark.parametrize(
    "line", ['{"meta":{"id":1},"prompt":"Hi"}', '{"src": {"id": 1}, "prompt": "Hi"}']
)
def test_an_object_at_the_place_of_a_safetensors_header_is_data(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(line)
    assert [one.prompt for one in read_requests(path, "harmful")] == ["Hi"]


def test_a_patch_and_a_model_in_place_of_requests_are_told(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    for start, kind in ((b"PATCHC\r\n", "a patch"), (b"\x02" + bytes(7) + b'{"', "a safetensors")):
        path.write_bytes(start)
        with pytest.raises(EvaluateError, match=f"it is {kind}.*; name another file$"):
            read_requests(path, "harmful")
