"""Settings in configuration files that make a loader import or run code.

Keys are searched for in the text, at any depth: a file of a patch may be large, and a parsed one
takes many times its size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain

from patchc.patching.code_contents import Content

_IMPORTS = "{} names code that a loader imports"
_HIDES = "it writes letters as escapes, which hides the names of settings"
_MOST_FOUND, _LONGEST_VALUE = 64, 1 << 16


def _is_set(value: object) -> bool:
    return bool(value)


def _is_foreign(value: object) -> bool:
    """Whether a class is named with its module, which is neither torch's nor a loader's."""
    own = ("torch.nn.", "sentence_transformers.", "transformers.")
    return isinstance(value, str) and "." in value and not value.startswith(own)


def _is_of_a_hub(value: object) -> bool:
    return "/" in repr(value)


def _is_lambda(value: object) -> bool:
    return value in ("Lambda", "__lambda__")


_Check = Callable[[object], bool]
KEYS: dict[str, _Check] = {
    "auto_map": _is_set,
    "custom_pipelines": _is_set,
    "custom_pipeline": _is_set,
    "trust_remote_code": _is_set,
    "_target_": _is_set,
    "model_file": _is_set,
    "parent_library": lambda value: not str(value).startswith("transformers."),
    "attn_implementation": _is_of_a_hub,
    "_attn_implementation": _is_of_a_hub,
    "_attn_implementation_internal": _is_of_a_hub,
    "_experts_implementation_internal": _is_of_a_hub,
    "activation_fn": _is_foreign,
    "activation_function": _is_foreign,
    "tokenizer_class": _is_foreign,
    "class_name": _is_lambda,
    "_class_name": lambda value: isinstance(value, list),
}
_KEYS_OF_FILES: dict[str, dict[str, _Check]] = {
    "modules.json": {"type": lambda value: not str(value).startswith("sentence_transformers.")},
}


def _pattern(keys: dict[str, _Check], form: str) -> re.Pattern[bytes]:
    return re.compile(form.format("|".join(map(re.escape, keys))).encode())


_JSON_KEY, _KEY_AT_START = r'"({})"\s*:', r'({})"\s*:'
_YAML_WORDS = {  # each begins with plain letters, which are found fast
    key: re.compile(re.escape(key).encode() + rb"(?![\w.-])")
    for key, check in KEYS.items()
    if check is _is_set
}
_YAML_TAGS = re.compile(rb"!(!|<tag:yaml\.org,2002:)python/"), re.compile(rb"%TAG")
_YAML_JOINED = re.compile(rb"\\\n"), re.compile(rb"\\\r\n")
_LETTER = rb"(?:u00|x|U000000)(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
_UP_TO_HIDDEN_LETTER = re.compile(rb"(?:[^\\]++|\\(?!" + _LETTER + rb").)*+\\" + _LETTER, re.S)
"""Up to a letter, digit or underscore behind an escape; writers of JSON leave those as they are.

Backslashes are taken in pairs from the start, each byte once.
"""
_NUL = re.compile(rb"\0")


def reason_by_settings(name: str, before: Content, after: Content) -> str | None:
    """Say what a configuration file sets that makes a loader run code, and did not before.

    Args:
        name: of the file; only JSON and YAML are looked at.
        before: its content on the other side; empty where there is no such file.
        after: its content on the side that is looked at.
    """
    last = name.casefold().rpartition("/")[2].rstrip(". ")
    if last.endswith((".yaml", ".yml")):
        return next(_in_yaml(after), None)
    if not last.endswith(".json"):
        return None
    known = set(_in_json(last, before))
    return next((one[0] for one in _in_json(last, after) if one not in known), None)


def _in_yaml(content: Content) -> Iterator[str]:
    """Give reasons; a value may go on for lines, so that each key counts whatever it was before."""
    for key, word in _YAML_WORDS.items():
        if word.search(content):
            yield _IMPORTS.format(key)
    if any(tag.search(content) for tag in _YAML_TAGS):
        yield "it has YAML tags that make objects"
    if any(joined.search(content) for joined in _YAML_JOINED):
        yield _HIDES
    yield from _unreadable(content)


def _in_json(last: str, content: Content) -> Iterator[tuple[str, str]]:
    """Give a reason for each setting, with its value."""
    keys = KEYS | _KEYS_OF_FILES.get(last, {})
    start = _pattern(keys, _KEY_AT_START).match(content)  # of what differs: the quote may not
    matches = chain([start] if start else [], _pattern(keys, _JSON_KEY).finditer(content))
    for number, match in enumerate(matches):
        if number == _MOST_FOUND:
            yield f"it has more than {_MOST_FOUND} settings that may name code", ""
            break
        key = bytes(match[1]).decode()
        text = bytes(content[match.end() : match.end() + _LONGEST_VALUE])
        try:
            value = _value(text)
        except (ValueError, RecursionError):
            yield _IMPORTS.format(key), text.hex()
        else:
            if keys[key](value):
                yield _IMPORTS.format(key), repr(value)
    for reason in _unreadable(content):
        yield reason, ""


def _value(start: bytes) -> object:
    """Read the value that a text starts with, objects as lists of pairs."""
    text = start.decode("utf-8", "replace").lstrip()
    return json.JSONDecoder(object_pairs_hook=list).raw_decode(text)[0]


def _unreadable(content: Content) -> Iterator[str]:
    if _NUL.search(content):
        yield "it is not UTF-8 text, so that its settings cannot be read"
    if _UP_TO_HIDDEN_LETTER.match(content):
        yield _HIDES
