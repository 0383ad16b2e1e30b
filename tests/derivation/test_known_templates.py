"""Templates that do what those of well-known models do: each serves ordinary conversations."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_llama import make_tokenizer

from patchc.derivation.chat_template import Talk, all_of, render
from patchc.derivation.conversations import Conversation
from patchc.derivation.examples import encode
from patchc.errors import DeriveError

ALTERNATING = (
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
)
TEMPLATES = {
    "a date, trimmed turns, a system turn in any case": (
        "{%- set date = strftime_now('%d %b %Y') if strftime_now is defined else 'today' -%}"
        "{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] | trim %}"
        "{% set turns = messages[1:] %}{% else %}{% set said = '' %}{% set turns = messages %}"
        "{% endif %}<system> {{ date }} {{ said }} <end> {% for m in turns %}<{{ m.role }}> "
        "{{ m['content'] | trim }} <end> {% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    ),
    "the system in the first turn of the user": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
        "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
        + ALTERNATING
        + "{% if m.role == 'user' %}[INST] {{ system + '\n\n' if loop.first and system else '' }}"
        "{{ m.content }} [/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    "thoughts left out of earlier replies, no thoughts in the last": (
        "{% if messages[0].role == 'system' %}<system> {{ messages[0].content }} <end> {% endif %}"
        "{% set last = namespace(user=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} <end> "
        "{% elif m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1] %}"
        "<assistant>"
        "{{ ' <think> </think> ' if loop.index0 > last.user else ' ' }}{{ said.lstrip('\n') }} "
        "<end> {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{{ ' <think> </think> ' }}{% endif %}"
    ),
    "escaped for HTML, in capitals, by a macro": (
        "{% macro turn(m) %}<{{ m.role }}> {{ m.content | e | upper }} <end> {% endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    ),
    "texts or parts, tools, and a default system": (
        "{% if messages[0].role != 'system' %}<system> brew a tea <end> {% endif %}"
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}> "
        "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
        "{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %} <end> "
        "{% if loop.last and not add_generation_prompt %}{% break %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    ),
}  # fmt: skip
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% set turns = messages %}"
    + ALTERNATING
    + "<{{ 'model' if m.role == 'assistant' else m.role }}> {{ m.content | trim }} <end> "
    "{% endfor %}{% if add_generation_prompt %}<model> {% endif %}"
)
THOUGHTS = "<think>ash</think>"
SAID = [
    ("user", "  brew a\ttea  "),
    ("assistant", f"{THOUGHTS}\n\nmix <sage> & \u00e9 \U0001f375"),
    ("user", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ("assistant", "mix ash"),
]


def messages(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in said]


def made(template: str) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("said", [SAID, [("system", "how do I"), *SAID]], ids=["plain", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_an_ordinary_conversation_is_rendered(name: str, said: list[tuple[str, str]]) -> None:
    tokenizer = made(TEMPLATES[name])
    talks = [Talk("d:1", messages(*said), asks=False), Talk("d:2", messages(*said[:-1]), asks=True)]
    assert all_of(render(tokenizer, talks)) == [
        tokenizer.apply_chat_template(one.messages, tokenize=False, add_generation_prompt=one.asks)
        for one in talks
    ]
    (example,) = encode(tokenizer, [Conversation("d:1", tuple(messages(*said)))], 999)
    assert example.response


def test_a_system_message_that_the_template_refuses_is_told_in_its_words() -> None:
    tokenizer = made(NO_SYSTEM)
    assert all_of(render(tokenizer, [Talk("d:1", messages(*SAID), asks=False)]))
    for said, told in (
        ([("system", "mix"), *SAID], "System role not supported"),
        ([SAID[0], SAID[0]], "Conversation roles must alternate"),
    ):
        with pytest.raises(DeriveError, match=told):
            all_of(render(tokenizer, [Talk("d:1", messages(*said), asks=False)]))


def test_prompts_may_differ_in_what_the_template_joins_or_leaves_out() -> None:
    asked = ("user", "mix a tea")
    thoughts = [
        messages(SAID[0], ("assistant", f"<think>{text}</think>sage"), asked)
        for text in ("tea", "ash")
    ]
    folded = [messages(("system", "how"), asked), messages(("user", "how\n\nmix a tea"))]
    for name, talks in (
        ("thoughts left out of earlier replies, no thoughts in the last", thoughts),
        ("the system in the first turn of the user", folded),
    ):
        texts = render(made(TEMPLATES[name]), [Talk("d:1", one, asks=True) for one in talks])
        assert len(set(all_of(texts))) == 1
