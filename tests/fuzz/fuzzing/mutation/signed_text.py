"""Changes envelopes of signatures, and makes encoding and signatures fit again."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

from signed_patches import FIRST, SECOND, THIRD, TestKey, plain, signatures

from fuzzing.mutation import json_text
from fuzzing.mutation.draws import Draws

_KEYS = (FIRST, SECOND, THIRD)
_TIMES = (
    "2026-11-29T12:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z",
    "2026-11-29T24:00:00Z", "2026-11-29 12:00:00Z", "٢٠٢٦-11-29T12:00:00Z", "",
)  # fmt: skip


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change an envelope: its statement, signed again, or its signatures, or its text."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if draws.chance(0.6):
            whole = json.loads(data)
            if draws.chance(0.6):
                payload = _other_statement(base64.b64decode(whole["payload"]), draws)
                whole["payload"] = base64.b64encode(payload).decode()
                signers: list[TestKey] = draws.sample(_KEYS, draws.randint(1, 3))
                whole["signatures"] = signatures(payload, *signers)
            else:
                whole["signatures"] = _other_signatures(whole["signatures"], draws)
            return plain(whole)
    return json_text.mutate(data, draws)


def _other_statement(payload: bytes, draws: Draws) -> bytes:
    statement = json.loads(payload)
    how = draws.randrange(4)
    if how == 0:
        statement["predicate"][draws.choice(("issued", "expires"))] = draws.choice(_TIMES)
    elif how == 1:
        statement["predicate"]["chunkBits"] = draws.number()
    else:
        changed = json_text.mutate(payload, draws)
        with suppress(ValueError, RecursionError):
            return plain(json.loads(changed))
        return changed
    return plain(statement)


def _other_signatures(given: list[dict[str, str]], draws: Draws) -> list[dict[str, str]]:
    one = dict(draws.choice(given))
    how = draws.randrange(4)
    if how == 0:
        one["keyid"] = draws.choice(_KEYS).key_id
    elif how == 1:
        one["keyid"] = f"{draws.getrandbits(256):064x}"
    elif how == 2:
        one["sig"] = base64.b64encode(draws.plain(base64.b64decode(one["sig"]), 64)).decode()
    found = sorted([*given, one], key=lambda each: each["keyid"])
    return found[draws.randrange(2) :] * draws.choice((1, 1, 1, 9))
