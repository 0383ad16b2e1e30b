"""Changes safetensors files, and makes the header's length and the tensors' bytes fit it."""

from __future__ import annotations

import json
from contextlib import suppress

from fuzzing.mutation import json_text
from fuzzing.mutation.draws import Draws

_LENGTH = 8
_MOST_DATA = 1 << 14
_DTYPES = (
    "BOOL", "U8", "I8", "I16", "F16", "BF16", "F32", "F64", "I64", "C64", "F4", "F6_E2M3",
    "F8_E4M3", "F8_E8M0", "F128", "bf16", "",
)  # fmt: skip


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change a file's header, and its length and data so that they fit; or any of its bytes."""
    if draws.chance(0.15):
        return draws.plain(data, len(data) + 64)
    size = int.from_bytes(data[:_LENGTH], "little")
    header, tensors = data[_LENGTH : _LENGTH + size], data[_LENGTH + size :]
    header = _other_tensor(header, draws) if draws.chance(0.4) else json_text.mutate(header, draws)
    if draws.chance(0.8):
        header += b" " * (-len(header) % _LENGTH)
    if draws.chance(0.7):
        wanted = _data_bytes(header, len(tensors))
        tensors = tensors[:wanted].ljust(wanted, b"\0")
    length = len(header) if draws.chance(0.95) else draws.number(len(header))
    return length.to_bytes(_LENGTH, "little") + header + tensors


def _other_tensor(header: bytes, draws: Draws) -> bytes:
    """A header in which a tensor has another dtype, name or shape, with the bytes that it takes."""
    with suppress(ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        entries = json.loads(header)
        name = draws.choice([one for one in entries if one != "__metadata__"])
        entry = entries[name]
        how = draws.randrange(4)
        if how == 0:
            entry["dtype"] = draws.choice(_DTYPES)
        elif how == 1:
            entries[draws.choice(json_text.TEXTS)] = entries.pop(name)
        elif how == 2:
            entry["shape"] = draws.changed(entry["shape"], draws.choice((4, 64)))
        else:
            entry["data_offsets"] = draws.changed(entry["data_offsets"], draws.choice((8, 64)))
        return json.dumps(entries).encode()
    return json_text.mutate(header, draws)


def _data_bytes(header: bytes, otherwise: int) -> int:
    with suppress(ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        entries = json.loads(header)
        ends = [one["data_offsets"][1] for key, one in entries.items() if key != "__metadata__"]
        if 0 <= max(ends, default=0) <= _MOST_DATA:
            return int(max(ends, default=0))
    return otherwise
