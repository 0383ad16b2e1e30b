"""Changes lines of JSON, tables of CSV, and the words of TOML and YAML."""

from __future__ import annotations

import re

from fuzzing.mutation import json_text
from fuzzing.mutation.draws import Draws

_WORD = re.compile(rb"\s+|[A-Za-z_][\w.-]*|-?\d[\w.+-]*|\"[^\"\n]*\"|'[^'\n]*'|.", re.DOTALL)
_VALUES = (
    b"0", b"-1", b"1", b"0.5", b"1e999", b"-inf", b"nan", b".inf", b".nan", b"1_0", b"0x10",
    b"0o7", b"0b1", b"9" * 25, b"9" * 5000, b"1e1", b"1:30:00", b"2026-11-29", b"true", b"yes",
    b"null", b"~", b'""', b"''", b"[]", b"{}", b"[[]]", b"[0.1, 0.2]", b'["a"]', b"{a = 1}",
    b"{a: 1}", b"&a", b"*a", b"!!python/name:os.system", b"!!binary aGk=", b"!!int 1", b"<<",
    b"|", b">", b"- ", b"? ", b": ", b"---\n", b"...\n", b"%YAML 1.2\n", b"#", b"\t", b"\r\n",
    b"\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"[" * 200, b"[" * 2000, b"{a: " * 200, b'"""',
    b"'''", b'"\\ud800"', b'"\\U0010ffff"', b"'(a+)+$'", b"'(a|a)*b'", b"'('", b"'[^'",
    b"'(?:a{1,999}){1,999}'", b"'(?P<x>a)(?P=x)'", b"'a{4294967296}'", b"'(?i)model'",
    b"[[override]]", b"match", b"retain", b"method", b"safepatching", b"ties", b"dare",
    b"override", b"include", b"exclude",
)  # fmt: skip


def mutate_lines(data: bytes, draws: Draws) -> bytes:
    """Change a line of JSON, or the order of lines."""
    lines = data.split(b"\n")
    for _ in range(draws.choice((1, 1, 2))):
        at, how = draws.place(lines), draws.randrange(8)
        if how == 0:
            lines.insert(draws.place(lines), lines[at])
        elif how == 1:
            lines[at] = draws.choice((b"", b"\r", b"[]", b"null", b"\xef\xbb\xbf", b"\xff\xfe"))
        elif how == 2:
            lines[at : at + 2] = [b" ".join(lines[at : at + 2])]
        else:
            lines[at] = json_text.mutate(lines[at], draws)
    return b"\n".join(lines)


def mutate_words(data: bytes, draws: Draws) -> bytes:
    """Change the words of a text: leave them out, repeat, move and replace them."""
    words = _WORD.findall(data)
    for _ in range(draws.choice((1, 1, 2, 4))):
        at = draws.randint(0, len(words))
        how = draws.randrange(6)
        if how == 0 or at == len(words):
            words.insert(at, draws.choice(_VALUES))
        elif how == 1:
            del words[at]
        elif how == 2:
            words.insert(draws.place(words), words[at])
        elif how == 3:
            words[at] = draws.plain(words[at], len(words[at]) + 16)
        elif how == 4:
            end = draws.randint(at, len(words))
            words[at:at] = words[end : end + draws.randint(1, 20)]
        else:
            words[at] = draws.choice(_VALUES)
    return b"".join(words)


def mutate_table(data: bytes, draws: Draws) -> bytes:
    """Change the marks of CSV."""
    marks = (b",", b'"', b'""', b"\r\n", b"\n", b"\r", b";", b"\0", b"\xff", b"=1+1", b"A" * 200)
    at = draws.randint(0, len(data))
    if draws.chance(0.5):
        return data[:at] + draws.choice(marks) + data[at + draws.randrange(2) :]
    return mutate_words(data, draws)


def mutate_words_of_kind(data: bytes, draws: Draws) -> bytes:
    """Change the words of a text behind a byte that says which of two forms it has."""
    kind = bytes([draws.randrange(2)]) if draws.chance(0.05) else data[:1]
    return kind + mutate_words(data[1:], draws)
