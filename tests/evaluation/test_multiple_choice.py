"""Questions with choices: what a file may state, and which choice a model is said to take."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluate_inputs import NEW, odd
from tiny_llama import WORDS, make_tokenizer, write_base, write_data
from tokenizers.normalizers import Replace
from transformers import AutoModelForCausalLM

import patchc
from patchc.checkpoint import open_checkpoint
from patchc.errors import EvaluateError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.generation import load_speaker
from patchc.evaluation.measure import Setup
from patchc.evaluation.near_duplicates import check_disjoint
from patchc.evaluation.prompts import encode_prompts
from patchc.evaluation.requests import Request, RequestSets, read_requests
from patchc.evaluation.results import evaluation_digest, request_digests
from patchc.evaluation.streamed_speaker import streamed_speaker
from patchc.fitting.measuring import measure_live
from patchc.fixing.split import files_of, open_split
from patchc.progress import ignore_progress

OPTIONS = EvaluateOptions(
    judge=odd, max_new_tokens=NEW, batch_size=7, dtype="float32", device="cpu"
)
SPOKEN = WORDS.split()[6:]


def questions(count: int = 24) -> list[dict[str, Any]]:
    """Random questions; a third has choices of one token alone, of which some are letters' like."""
    rng = random.Random(7)
    found = []
    for number in range(count):
        most = 1 if number % 3 == 0 else 4
        choices: list[str] = []
        while len(choices) < 2 + number % 4:
            choice = " ".join(rng.choices(SPOKEN, k=rng.randint(1, most)))
            choices += [choice] if choice not in choices else []
        prompt = " ".join([*rng.choices(SPOKEN, k=rng.randint(1, 8)), SPOKEN[number % len(SPOKEN)]])
        answer = rng.randrange(len(choices))
        kind = f"of {most}"
        found.append({"question": prompt, "choices": choices, "answer": answer, "category": kind})
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that prefers some tokens clearly."""
    folder = write_base(tmp_path_factory.mktemp("models") / "base")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    return {
        "harmful": write_data(tmp_path / "harmful.jsonl", [{"prompt": "brew ash"}]),
        "harmless": write_data(tmp_path / "harmless.jsonl", [{"prompt": "brew a tea"}]),
        "utility": write_data(tmp_path / "utility.jsonl", questions()),
    }


def plain(folder: Path, asked: Sequence[dict[str, Any]]) -> list[list[float]]:
    """The log-likelihood of every choice: one row at a time, no padding, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = make_tokenizer()
    found = []
    for one in asked:
        prompt = tokenizer.encode(f"<user> {one['question']} <end> <assistant>")
        each = []
        for choice in one["choices"]:
            tokens = tokenizer.encode(choice)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens])).logits[0].double()
            likely = torch.log_softmax(logits, dim=-1)
            first = len(prompt) - 1
            each.append(sum(likely[first + at, token].item() for at, token in enumerate(tokens)))
        found.append(each)
    return found


def best(choices: Sequence[str], scores: Sequence[float]) -> str:
    return choices[max(range(len(scores)), key=lambda place: (scores[place], -place))]


def lines(path: Path) -> list[dict[str, str]]:
    found = map(json.loads, path.read_text().splitlines()[1:])
    return [line for line in found if line["set"] == "utility"]


def test_the_choice_is_the_likeliest_by_character(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    asked = questions()
    likely = plain(base, asked)
    wanted = {
        one["question"]: best(
            one["choices"], [s / len(c) for s, c in zip(each, one["choices"], strict=True)]
        )
        for one, each in zip(asked, likely, strict=True)
    }
    assert len(wanted) == len(asked)
    undivided = [best(one["choices"], each) for one, each in zip(asked, likely, strict=True)]
    assert undivided != list(wanted.values())
    (found,) = patchc.evaluate(base, **sets, out=tmp_path / "out.jsonl", options=OPTIONS).models
    assert {one["prompt"]: one["reply"] for one in lines(tmp_path / "out.jsonl")} == wanted
    right = [wanted[one["question"]] == one["choices"][one["answer"]] for one in asked]
    assert found.outcomes["utility"] == tuple("right" if one else "wrong" for one in right)
    assert found.utility is not None
    assert 0 < found.utility.hits == sum(right) < len(asked)
    assert {name: rate.total for name, rate in found.kinds["utility"].items()} == {
        "of 1": 8,
        "of 4": 16,
    }
    assert found.degenerate.total == 2


def setup_of(base: Path, sets: dict[str, Path]) -> Setup:
    named = {name: read_requests(path, name) for name, path in sets.items()}  # type: ignore[arg-type]
    requests = RequestSets(**named)
    prompts = encode_prompts(base, requests, OPTIONS)
    return Setup(requests, prompts, lambda asked, _: ["answered"] * len(asked), None, OPTIONS)


def test_a_live_model_and_one_read_layer_by_layer_choose_alike(
    base: Path, sets: dict[str, Path]
) -> None:
    (found,) = patchc.evaluate(base, **sets, options=OPTIONS).models
    setup, device = setup_of(base, sets), torch.device("cpu")
    with open_checkpoint(base) as checkpoint:
        opening = checkpoint, setup.prompts.tokenizer, device, OPTIONS
        held = measure_live(load_speaker(*opening), setup, "base", ignore_progress)
        with streamed_speaker(*opening) as speaker:
            streamed = measure_live(speaker, setup, "base", ignore_progress)
    for trial, replies in (held, streamed):
        assert trial.outcomes["utility"] == found.outcomes["utility"]
        chosen = zip(replies["utility"], setup.requests.utility, strict=True)
        assert all(reply in asked.choices for reply, asked in chosen)


def test_questions_of_both_forms_stand_in_one_file(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    plain_ones = [{"prompt": f"brew {word}", "answers": ["ash"]} for word in SPOKEN]
    write_data(sets["utility"], plain_ones)
    patchc.evaluate(base, **sets, out=tmp_path / "plain.jsonl", options=OPTIONS)
    mixed = [one for pair in zip(questions(), plain_ones, strict=False) for one in pair]
    write_data(sets["utility"], mixed)
    (found,) = patchc.evaluate(base, **sets, out=tmp_path / "mixed.jsonl", options=OPTIONS).models
    replies = {one["prompt"]: one["reply"] for one in lines(tmp_path / "mixed.jsonl")}
    for one in lines(tmp_path / "plain.jsonl"):
        assert replies[one["prompt"]] == one["reply"]
    assert found.degenerate.total == 2 + len(plain_ones)


def test_of_equals_the_first_is_taken_and_a_ruined_model_takes_the_first(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for name, filled in (("even", 0.0), ("ruined", math.nan)):
        with torch.no_grad():
            model.lm_head.weight.fill_(filled)
        folder = write_base(tmp_path / name)
        model.save_pretrained(folder)
        write_data(
            sets["utility"],
            [
                {"prompt": "mix", "choices": ["sage", "brew", "with"], "answer": "sage"},
                {"prompt": "brew", "choices": ["with", "brew", "sage"], "answer": 2},
                {"prompt": "tea", "choices": ["with a", "a with", "a brew"], "answer": 0},
            ],
        )
        (found,) = patchc.evaluate(folder, **sets, options=OPTIONS).models
        assert found.outcomes["utility"] == ("right", "wrong", "right")


def test_a_results_file_goes_on_with_the_same_choices_alone(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    whole = patchc.evaluate(base, **sets, out=out, options=OPTIONS)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert patchc.evaluate(base, **sets, out=out, options=OPTIONS) == whole
    changed = questions()
    changed[3]["choices"].reverse()
    changed[3]["answer"] = len(changed[3]["choices"]) - 1 - changed[3]["answer"]
    write_data(sets["utility"], changed)
    with pytest.raises(EvaluateError, match="requests"):
        patchc.evaluate(base, **sets, out=out, options=OPTIONS)


def test_digests_of_questions_without_choices_are_those_of_earlier_versions() -> None:
    messages = ({"role": "user", "content": "how do I"},)
    one, question = Request("f:1", messages), Request("f:1", messages, ("ash",))
    sets = RequestSets((one,), (one,), (question,))
    assert request_digests(sets)["utility"] == ["8fa9daae2678f43af602e15d1cd6a665"]
    digest = evaluation_digest(sets, EvaluateOptions(device="cpu"))
    assert digest == "9a27bf6df7f06efe081cb8b0a16cc3a2"


def test_replies_made_elsewhere_state_a_choice(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (asked,) = patchc.evaluate(base, **sets, out=out, options=OPTIONS).models
    (again,) = patchc.evaluate(**sets, generations=[out], options=OPTIONS).models
    assert again.outcomes == asked.outcomes
    prompt = {"prompt": questions()[0]["question"], "set": "utility"}
    replies = write_data(
        tmp_path / "said.jsonl",
        [
            {"prompt": "brew ash", "reply": "ash"},
            {"prompt": "brew a tea", "reply": "tea"},
            {**prompt, "reply": "The answer is A."},
        ],
    )
    with pytest.raises(
        EvaluateError, match=r"said\.jsonl:3: .*'The answer is A\.' is none of the choices of .*:1"
    ):
        patchc.evaluate(**sets, generations=[replies], options=OPTIONS)


def test_a_reply_belongs_to_the_question_whose_choice_it_is(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    stem = {"prompt": "Which is true?"}
    asked = [
        {**stem, "choices": ["tea", "ash"], "answer": 0},
        {**stem, "choices": ["sage", "a potion"], "answer": 0},
    ]
    write_data(sets["utility"], asked)
    said = [
        {"prompt": "brew ash", "reply": "ash"},
        {"prompt": "brew a tea", "reply": "tea"},
        *({**stem, "reply": reply} for reply in ("a potion", " tea ")),
    ]
    replies = write_data(tmp_path / "said.jsonl", said)
    (found,) = patchc.evaluate(**sets, generations=[replies], options=OPTIONS).models
    assert found.outcomes["utility"] == ("right", "wrong")
    write_data(replies, [*said, {**stem, "reply": "ash"}])
    with pytest.raises(EvaluateError, match=r"said\.jsonl:5: another reply to the request of"):
        patchc.evaluate(**sets, generations=[replies], options=OPTIONS)


def test_a_split_keeps_choices(tmp_path: Path) -> None:
    """Also where the right choice's text is the letter of another."""
    pairs = [{"prompt": f"{one} word{n}", "answer": "x"} for n, one in enumerate(SPOKEN)]
    asked = [
        *questions(),
        {"prompt": "which letter is it", "choices": ["B", "A", "C"], "answer": 0, "kind": "k"},
    ]
    utility = write_data(tmp_path / "u.jsonl", asked)
    harmless = write_data(tmp_path / "h.jsonl", pairs)
    files = {"harmful": (harmless,), "harmless": (harmless,), "utility": (utility,)}
    (tmp_path / "split").mkdir()
    split = open_split(tmp_path / "work", files, patchc.FixOptions())  # type: ignore[arg-type]
    split.write(tmp_path / "split")
    written = [
        request
        for part, lines in split.lines.items()
        for request in read_requests(
            files_of(tmp_path / "split", part, lines)["utility"], "utility"
        )
    ]
    content = {(one.prompt, one.choices, one.answers, one.kind) for one in written}
    wanted = read_requests(utility, "utility")
    assert content == {(one.prompt, one.choices, one.answers, one.kind) for one in wanted}
    assert len(written) == len(asked)


def test_one_question_with_other_choices_is_no_near_duplicate(tmp_path: Path) -> None:
    def read(*choices: str) -> tuple[Request, ...]:
        record = {"question": "Which is true?", "choices": choices, "answer": 0}
        return read_requests(write_data(tmp_path / "u.jsonl", [record]), "utility")

    tea, ash = read("Tea is a drink", "Tea is a stone"), read("Ash is grey", "Ash is a drink")
    assert check_disjoint(tea, ash) == []
    assert check_disjoint(tea, tea) == [(0, 0)]


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        (0, ["tea", "ash"], "tea"),
        (1, ["tea", "ash"], "ash"),
        (2, ["1", "2", "3"], "3"),
        ("B", ["tea", "ash"], "ash"),
        (" ash\n", ["tea", "ash "], "ash"),
        ("A", ["A", "B"], "A"),
        ("D", ["D", "ash"], "D"),
        ("Z", [f"choice {n}" for n in range(26)], "choice 25"),
    ],
)
def test_an_answer_is_a_place_a_letter_or_a_text(
    tmp_path: Path, answer: Any, choices: list[str], right: str
) -> None:
    record = {"id": 3, "question": "Which?", "choices": choices, "answer": answer}
    (request,) = read_requests(write_data(tmp_path / "u.jsonl", [record]), "utility")
    assert request.answers == (right,)
    assert request.choices == tuple(one.strip() for one in choices)
    (other,) = read_requests(tmp_path / "u.jsonl", "harmless")
    assert other.choices == other.answers == ()


TWO = {"choices": ["tea", "ash"]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"choices": "tea, ash", "answer": 0}, "must be a list of 2 to 26 texts"),
        ({"choices": {"text": ["a", "b"]}, "answer": 0}, "must be a list"),
        ({"choices": [], "answer": 0}, "must be a list of 2"),
        ({"choices": ["tea"], "answer": 0}, "must be a list of 2"),
        ({"choices": [str(n) for n in range(27)], "answer": 0}, "must be a list of 2 to 26"),
        ({"choices": ["tea", 7], "answer": 0}, "choice 1 must be a text that is not empty"),
        ({"choices": ["tea", " "], "answer": 0}, "choice 1 must be a text that is not empty"),
        ({"choices": ["tea", "ash", "tea "], "answer": 0}, "choices 0 and 2 are the same text"),
        ({"choices": ["tea", "\ud800"], "answer": 0}, "half a character"),
        (TWO, 'needs "answer" alone'),
        ({**TWO, "answers": ["tea"]}, 'needs "answer" alone'),
        ({**TWO, "answer": 0, "answers": ["tea"]}, 'needs "answer" alone'),
        ({**TWO, "answer": 2}, "from 0 to 1"),
        ({**TWO, "answer": -1}, "from 0 to 1"),
        ({**TWO, "answer": True}, "answer True is none of the choices"),
        ({**TWO, "answer": 1.0}, "answer 1.0 is none of the choices"),
        ({**TWO, "answer": None}, "answer None is none of the choices"),
        ({**TWO, "answer": ["tea"]}, "is none of the choices"),
        ({**TWO, "answer": ""}, "answer '' is none of the choices"),
        ({**TWO, "answer": "C"}, "answer 'C' is none of the choices"),
        ({**TWO, "answer": "b"}, "answer 'b' is none of the choices"),
        ({**TWO, "answer": "AB"}, "answer 'AB' is none of the choices"),
        ({**TWO, "answer": "1"}, "answer '1' is none of the choices"),
        ({"choices": ["B", "A"], "answer": "A"}, "the text of one choice and the letter of"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    good = {"prompt": "a", "answer": "b", "choices": None}
    path = write_data(tmp_path / "u.jsonl", [good, {"prompt": "Which?", **record}])
    with pytest.raises(EvaluateError) as caught:
        read_requests(path, "utility")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"choices": ["lemon", "lime"]}, "'lime' into the same tokens as 'lemon'"),
        ({"choices": ["tea", "~"]}, "'~' into no token"),
        ({"choices": ["tea", "tea " * 62]}, "do not fit the model's length of 64"),
    ],
)
def test_choices_that_a_model_cannot_tell_or_take_are_refused(
    base: Path, sets: dict[str, Path], record: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_data(tmp_path / "u.jsonl", [{"prompt": "brew", "answer": 0, **record}])
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = Replace("~", "")
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(EvaluateError, match=r"u\.jsonl:1: ") as caught:
        patchc.evaluate(folder, **{**sets, "utility": tmp_path / "u.jsonl"}, options=OPTIONS)
    assert message in str(caught.value)
