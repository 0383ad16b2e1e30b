"""Inputs that are several files, each of one of a target's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fuzzing.mutation.draws import Draws

Change = Callable[[bytes, Draws], bytes]

_SIZE_BYTES = 3


def pack(files: Mapping[str, bytes], names: Sequence[str]) -> bytes:
    """Files as one input: for each the place of its name, its size and its content."""
    return b"".join(
        bytes([names.index(name)]) + len(content).to_bytes(_SIZE_BYTES, "little") + content
        for name, content in files.items()
    )


def unpack(data: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The files of an input, whatever its bytes are."""
    files, at = {}, 0
    while at < len(data):
        name = names[data[at] % len(names)]
        start = at + 1 + _SIZE_BYTES
        size = int.from_bytes(data[at + 1 : start], "little")
        files[name] = data[start : start + size]
        at = start + size
    return files


def mutate(
    data: bytes, draws: Draws, *, names: Sequence[str], changes: Mapping[str, Change]
) -> bytes:
    """Change one of the files, by the change for the end of its name; or leave one out."""
    files = unpack(data, names)
    if not files or draws.chance(0.05):
        return draws.plain(data, len(data) + 64)
    name = draws.choice(sorted(files))
    if draws.chance(0.05):
        del files[name]
    elif draws.chance(0.05):
        files[draws.choice(names)] = files[name]
    else:
        change = next(one for end, one in changes.items() if name.endswith(end))
        files[name] = change(files[name], draws)
    return pack(files, names)
