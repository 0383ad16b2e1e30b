"""Settings in configuration files that make a loader import or run code.

Keys are searched for in the text, at any depth: a file of a patch may be large, and a parsed one
takes many times its size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, groupby
from operator import itemgetter

from patchc.patching.code_contents import Content
from patchc.patching.code_names import as_windows_sees

_IMPORTS = "{} names code that a loader imports"
_HIDES = "it writes letters as escapes, which hides the names of settings"
_MOST_FOUND, _MOST_LONG = 256, 8
_SHORT_VALUE, _LONGEST_VALUE = 1 << 8, 1 << 16
_NEVER_KNOWN = object()

_Check = Callable[[object], bool]


def _is_set(value: object) -> bool:
    return bool(value)


def _names_something(value: object) -> bool:
    """Whether there is a text, or objects with some; a vocabulary has numbers there."""
    return bool(value) and not isinstance(value, int | float)


def _is_foreign(value: object) -> bool:
    """Whether a class is named with its module, which is neither torch's nor a loader's."""
    own = ("torch.nn.", "sentence_transformers.", "transformers.")
    return isinstance(value, str) and "." in value and not value.startswith(own)


def _is_of_a_hub(value: object) -> bool:
    return "/" in repr(value)


def _is_lambda(value: object) -> bool:
    return value in ("Lambda", "__lambda__")


def _is_not_of(package: str) -> _Check:
    return lambda value: _names_something(value) and not str(value).startswith(f"{package}.")


def _has_foreign(value: object) -> bool:
    return isinstance(value, list) and any(
        isinstance(p, tuple) and _is_foreign(p[1]) for p in value
    )


_SETTINGS: dict[str, _Check] = {
    "auto_map": _names_something,
    "custom_pipelines": _names_something,
    "custom_pipeline": _names_something,
    "trust_remote_code": _is_set,
    "_target_": _names_something,
    "model_file": _names_something,
}
KEYS = _SETTINGS | {
    "parent_library": _is_not_of("transformers"),
    "attn_implementation": _is_of_a_hub,
    "_attn_implementation": _is_of_a_hub,
    "_attn_implementation_internal": _is_of_a_hub,
    "experts_implementation": _is_of_a_hub,
    "_experts_implementation": _is_of_a_hub,
    "_experts_implementation_internal": _is_of_a_hub,
    "activation_fn": _is_foreign,
    "activation_function": _is_foreign,
    "tokenizer_class": _is_foreign,
    "class_name": _is_lambda,
    "_class_name": lambda value: isinstance(value, list),
}
_KEYS_OF_FILES: dict[str, dict[str, _Check]] = {
    "modules.json": {"type": _is_not_of("sentence_transformers")},
    "config.json": {"types": _has_foreign},
    "router_config.json": {"types": _has_foreign},
}


_PLAIN = r'(?!\s*"(?!Lambda"|__lambda__")[^"./\\]*+")'
"""No text that none of these checks heeds: in a large file, there may be millions of those."""
_HEED_ANY = {*_SETTINGS, "parent_library", "type"}


def _pattern(keys: dict[str, _Check], before: str) -> re.Pattern[bytes]:
    """Find any of these keys; grouped by their first letters, which takes a third of the time."""
    ends = sorted(rf'{re.escape(key)}"\s*:{"" if key in _HEED_ANY else _PLAIN}' for key in keys)
    groups = groupby(ends, itemgetter(0))
    parts = (f"{first}(?:{'|'.join(end[1:] for end in some)})" for first, some in groups)
    return re.compile(f"{before}(?:{'|'.join(parts)})".encode())


_YAML_WORDS = {  # each begins with plain letters, which are found fast
    key: re.compile(re.escape(key).encode() + rb"(?![\w.-])") for key in _SETTINGS
}
_YAML_TAGS = [  # each begins with plain letters, too
    *(re.compile(rf"{word}(?<=!{word})".encode()) for word in (
        "python/", "apply:", "module:", "name:", "new:",  # the last four are HyperPyYAML's
    )),
    re.compile(rb"python/(?<=2002:python/)"),
    re.compile(rb"%TAG"),
    re.compile(rb"%(?:2[c-fC-F]|3[0-9aA]|[46][1-9a-fA-F]|[57][0-9aA])"),  # a letter, escaped
]  # fmt: skip
_YAML_JOINED = re.compile(rb"\\(\r|\n|\xc2\x85|\xe2\x80[\xa8\xa9])")
_LETTER = rb"(?:u00|x|U000000)(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
_UP_TO_HIDDEN_LETTER = re.compile(rb"(?:[^\\]++|\\(?!" + _LETTER + rb").)*+\\" + _LETTER, re.S)
"""Up to a letter, digit or underscore behind an escape; writers of JSON leave those as they are.

Backslashes are taken in pairs from the start, each byte once.
"""
_NUL = re.compile(rb"\0")
_DECODER = json.JSONDecoder(object_pairs_hook=list)


def reason_by_settings(name: str, before: Content, after: Content) -> str | None:
    """Say what a configuration file sets that makes a loader run code, and did not before.

    Args:
        name: of the file; only JSON and YAML are looked at.
        before: its content on the other side; empty where there is no such file.
        after: its content on the side that is looked at.
    """
    last = as_windows_sees(name.casefold().rpartition("/")[2])
    if last.endswith((".yaml", ".yml")):
        return next(_in_yaml(after), None)
    if not last.endswith(".json"):
        return None
    known: set[tuple[str, object]] | None = None
    for reason, value in _in_json(last, after):
        if value is _NEVER_KNOWN:
            return reason
        if known is None:
            known = set(_in_json(last, before))
        if (reason, value) not in known:
            return reason
    return None


def _in_yaml(content: Content) -> Iterator[str]:
    """Give reasons; a value may go on for lines, so that each key counts whatever it was before."""
    for key, word in _YAML_WORDS.items():
        if word.search(content):
            yield _IMPORTS.format(key)
    if any(tag.search(content) for tag in _YAML_TAGS):
        yield "it has YAML tags that make objects"
    if _YAML_JOINED.search(content):
        yield _HIDES
    yield from _unreadable(content)


def _in_json(last: str, content: Content) -> Iterator[tuple[str, object]]:
    """Give a reason for each setting, with its value."""
    for reason in _unreadable(content):
        yield reason, _NEVER_KNOWN  # what it hides may be new
    keys = KEYS | _KEYS_OF_FILES.get(last, {})
    start = _pattern(keys, "").match(content)  # of what differs: the quote may not
    matches = chain([start] if start else [], _pattern(keys, '"').finditer(content))
    long_ones = 0
    for number, match in enumerate(matches):
        key = bytes(match[0]).removeprefix(b'"').partition(b'"')[0].decode()
        value = _value(content[match.end() : match.end() + _SHORT_VALUE])
        is_long = isinstance(value, bytes)
        if is_long:
            value = _value(content[match.end() : match.end() + _LONGEST_VALUE])
        long_ones += is_long
        if number >= _MOST_FOUND or long_ones > _MOST_LONG:
            yield "it has too many settings that may name code", _NEVER_KNOWN
            return
        if isinstance(value, bytes) or keys[key](value):
            yield _IMPORTS.format(key), repr(value)


def _value(start: Content) -> object:
    """Read the value that a text starts with, objects as lists of pairs; bytes where it is none."""
    text = bytes(start)
    try:
        return _DECODER.raw_decode(text.decode("utf-8", "replace").lstrip())[0]
    except (ValueError, RecursionError):
        return text


def _unreadable(content: Content) -> Iterator[str]:
    if _NUL.search(content):
        yield "it is not UTF-8 text, so that its settings cannot be read"
    if _UP_TO_HIDDEN_LETTER.match(content):
        yield _HIDES
