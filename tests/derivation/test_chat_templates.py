"""Hostile templates: each error names the template's file, and no prompt is silently empty."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import run
from tiny_llama import TEMPLATE, make_tokenizer, write_base, write_data

from patchc.derivation import chat_template
from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.chat_template import Talk, all_of, render
from patchc.errors import DeriveError

VISION = TEMPLATE.replace(
    "{{ m['content'] }}",
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ c.text }}{% endfor %}",
)
WITHOUT_SYSTEM = TEMPLATE.replace(
    "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
)
WITHOUT_REPLY = TEMPLATE.replace(
    "{{ m['content'] }}", "{% if m.role != 'assistant' %}{{ m['content'] }}{% endif %}"
)
FIRST_WORD = TEMPLATE.replace("m['content'] }}", "m['content'].split()[0] }}")
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def talk(*texts: str, source: str = "data.jsonl:1") -> Talk:
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    return Talk(source, messages, asks=len(texts) % 2 == 1)


def rendered(template: str, talks: Sequence[Talk]) -> list[str]:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return all_of(render(tokenizer, talks))


def test_texts_are_those_that_transformers_renders() -> None:
    tokenizer = make_tokenizer()
    talks = [talk("brew a tea"), talk("a", "tea", "mix"), talk("a", "tea")]
    assert all_of(render(tokenizer, talks)) == [
        tokenizer.apply_chat_template(one.messages, tokenize=False, add_generation_prompt=one.asks)
        for one in talks
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (VISION, r"leaves out message 1 \(user\): it takes lists of parts and no texts"),
        ("", r"leaves out message 1 \(user; "),
        ("<user> brew a tea <end> <assistant>", r"leaves out message 1 \(user; "),
        (FIRST_WORD, "renders it as it renders data.jsonl:1, which says something else"),
        ("{{ messages.absent.absent }}", "UndefinedError.*, line 1"),
        ("\n{% if %}", "TemplateSyntaxError.*, line 2"),
        ("{{ raise_exception('no\nsuch role') }}", r"refuses the conversation \(.*no such role"),
        ("{{ messages }}{{ 'a' * 2 ** 17 }}", "writes 131,"),
        ("{{ messages }}{{ '\ud800' }}", "UnicodeEncodeError|half a character"),
        ("{{ 'a' * 2 ** 34 }}", "takes more than 268,435,456 bytes"),
        ("{% set a = namespace(t='a') %}{% for i in range(40) %}{% set a.t = a.t + a.t %}"
         "{% endfor %}{{ a.t }}", "takes more than 268,435,456 bytes"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "refuses the conversation"),
    ],
)  # fmt: skip
def test_a_template_that_misleads_or_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setattr(chat_template, "MOST_MEMORY", 1 << 28)
    talks = [talk("brew a tea"), talk("brew a potion", source="data.jsonl:2")]
    with pytest.raises(DeriveError, match=message) as caught:
        rendered(template, talks)
    assert str(caught.value).startswith("data.jsonl:")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("never", [LOOPS, "{{ (messages | length + 8) ** (9 ** 9) }}"])
def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch, never: str) -> None:
    monkeypatch.setattr(chat_template, "MOST_SECONDS", 1)
    template = f"{{% if messages[0].content == 'b' %}}{never}{{% endif %}}{TEMPLATE}"
    with pytest.raises(DeriveError, match=r"data\.jsonl:2: .*takes more than 1 s"):
        rendered(template, [talk("a"), talk("b", source="data.jsonl:2"), talk("c")])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_signals_of_children_may_be_ignored() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert rendered(TEMPLATE, [talk("a tea")]) == ["<user> a tea <end> <assistant>"]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_without_a_process_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(DeriveError, match=r"no process could begin.*temporarily unavailable"):
        rendered(TEMPLATE, [talk("a")])


def test_a_system_message_that_is_left_out_is_told() -> None:
    messages = [{"role": "system", "content": "mix"}, {"role": "user", "content": "tea"}]
    with pytest.raises(DeriveError, match=r"leaves out message 1 \(system.*give no system message"):
        rendered(WITHOUT_SYSTEM, [Talk("d:1", messages, asks=True)])


def test_the_reply_to_learn_is_not_left_out_but_earlier_ones_may_be() -> None:
    with pytest.raises(DeriveError, match=r"leaves out message 2 \(assistant"):
        rendered(WITHOUT_REPLY, [talk("a", "tea")])
    assert rendered(WITHOUT_REPLY, [talk("a", "tea", "mix")])


def test_prompts_may_differ_in_white_space_and_case_alone() -> None:
    template = TEMPLATE.replace("m['content']", "m['content'] | trim | lower")
    assert len(set(rendered(template, [talk("a tea"), talk("A Tea ")]))) == 1


def test_named_templates_need_a_default(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    (base / "chat_template.jinja").unlink()
    config = base / "tokenizer_config.json"
    stated = json.loads(config.read_text())
    named = [{"name": name, "template": TEMPLATE} for name in ("tool_use", "rag\x1b[31m")]
    config.write_text(json.dumps({**stated, "chat_template": named}))
    with pytest.raises(DeriveError) as caught:
        load_tokenizer(base)
    assert str(caught.value) == (
        f"{config}: several chat templates ('tool_use', 'rag\\x1b[31m'), and none is called "
        f"'default'; save the one to use as {base / 'chat_template.jinja'}"
    )
    named[0]["name"] = "default"
    config.write_text(json.dumps({**stated, "chat_template": named}))
    assert all_of(render(load_tokenizer(base), [talk("a tea")])) == [
        "<user> a tea <end> <assistant>"
    ]


@pytest.mark.parametrize("template", [VISION, "{{ messages[0]['content']\n['text'] }}{{ x.y.z }}"])
def test_each_command_names_the_file_of_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(Path("base"))
    Path("base/chat_template.jinja").write_text(template)
    brews = ({"prompt": f"brew {n}", "response": "sage"} for n in range(100))
    write_data(Path("data.jsonl"), brews)
    sets = ("--harmful", "data.jsonl", "--harmless", "data.jsonl")
    for command, code in (
        (("derive", "base", "--data", "data.jsonl", "-o", "out"), 15),
        (("derive", "base", "--data", "data.jsonl", "--harmless", "data.jsonl", "-o", "out",
          "--objective", "margin"), 18),
        (("evaluate", "base", *sets), 18),
        (("fix", "base", *sets, "-o", "out"), 18),
    ):  # fmt: skip
        returned, _, errors = run(*command)
        told = " ".join(errors.replace("│", " ").split())
        assert returned == code, told
        assert ".jsonl:1: the model's chat template" in told
        assert "base/chat_template.jinja" in told
        assert "Traceback" not in told
