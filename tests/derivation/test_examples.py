"""Tokens, the mask of the response, and the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from tiny_llama import make_tokenizer, write_base
from transformers import AutoModelForCausalLM

from patchc.derivation.conversations import Conversation
from patchc.derivation.examples import Example, encode, mean_loss, pad, shuffled
from patchc.errors import DeriveError

CPU = torch.device("cpu")


def talk(*texts: str) -> Conversation:
    roles = ("user", "assistant") * len(texts)
    turns = tuple({"role": r, "content": t} for r, t in zip(roles, texts, strict=False))
    return Conversation("data.jsonl:1", turns)


def words(tokens: tuple[int, ...]) -> str:
    return str(make_tokenizer().decode(tokens))


def test_the_prompt_ends_where_the_assistant_speaks_and_the_response_ends_its_turn() -> None:
    (example,) = encode(make_tokenizer(), [talk("brew a tea", "mix ash")], 64)
    assert words(example.prompt) == "<user> brew a tea <end> <assistant>"
    assert words(example.response) == "mix ash <end>"


def test_only_the_last_assistant_turn_is_a_response() -> None:
    (example,) = encode(make_tokenizer(), [talk("a", "tea", "mix", "ash")], 64)
    assert words(example.response) == "ash <end>"
    assert words(example.prompt).startswith("<user> a <end> <assistant> tea <end>")


def test_a_long_response_is_cut_and_a_prompt_without_room_is_refused() -> None:
    conversation = talk("brew a tea", "mix ash")
    (example,) = encode(make_tokenizer(), [conversation], 7)
    assert words(example.response) == "mix"
    with pytest.raises(DeriveError, match=r"data\.jsonl:1: 6 prompt tokens"):
        encode(make_tokenizer(), [conversation], 6)


def test_a_template_that_does_not_extend_its_prompt_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %} {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}x{% endif %}"
    )
    with pytest.raises(DeriveError, match="as the prompt followed by the response"):
        encode(tokenizer, [talk("a", "tea")], 64)


class Clock:
    """A tokenizer whose template writes a time, which passes after every four texts."""

    chat_template, name_or_path, texts = "", "", 0

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], **_settings: object
    ) -> str:
        self.texts += 1
        said = " ".join(one["content"] for one in messages)
        return f"{(self.texts - 1) // 4}: {said} "

    def encode(self, text: str, **_settings: object) -> list[int]:
        return list(text.encode())


def test_a_template_may_write_the_time() -> None:
    conversations = [talk(word, "tea") for word in ("a", "mix", "ash")]
    first, second, third = encode(Clock(), conversations, 64)
    assert bytes(first.prompt + first.response) == b"0: a tea"
    assert bytes(second.prompt) == b"1: mix "
    assert bytes(third.response) == b"tea"


def test_a_template_that_refuses_a_role_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(DeriveError, match=r"data\.jsonl:1: .*no such role"):
        encode(tokenizer, [talk("a", "tea")], 64)


def test_weights_cover_responses_only_and_sum_to_one() -> None:
    batch = pad([Example((6, 7, 8), (9,)), Example((6,), (7, 8, 9, 10, 11))], CPU)
    assert batch.weights.tolist()[0] == [0, 0, 0, 0.5, 0, 0]
    assert batch.weights[1].tolist() == pytest.approx([0] + [0.1] * 5)


def test_the_loss_is_the_mean_of_per_response_means(tmp_path: Path) -> None:
    """Against a loop over single tokens, without padding or masks."""
    model = AutoModelForCausalLM.from_pretrained(write_base(tmp_path), dtype=torch.float32).eval()
    examples = [Example((6, 7, 8), (9, 10)), Example((11,), (7, 8, 9, 10, 11))]
    means = []
    for example in examples:
        tokens, total = list(example.prompt), 0.0
        for token in example.response:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            total -= math.log(torch.softmax(logits.double(), 0)[token].item())
            tokens.append(token)
        means.append(total / len(example.response))
    loss = mean_loss(model, pad(examples, CPU)).item()
    assert loss == pytest.approx(sum(means) / len(means), rel=1e-5)


def test_batches_pass_over_all_data_before_they_repeat() -> None:
    examples = [Example((number,), (0,)) for number in range(5)]
    drawn = [e.prompt[0] for batch in islice(shuffled(examples, 2, 0), 5) for e in batch]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == list(range(5))


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert len(next(shuffled([Example((1,), (2,))], 3, 0))) == 3
