"""Two other ways to run compiled loops: interpreted, and compiled with checks of bounds.

Each has to be chosen before the modules with the loops are imported. The kept machine code of loops
with checks has names of its own, since a loop's options are part of its digest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchc import jit

_ONES = (1 << 64) - 1


def check_bounds() -> None:
    """Let every place in an array be checked by loops that are compiled from now on."""
    jit._COMMON["boundscheck"] = True


def interpret() -> None:
    """Let Python run the loops, so that a fuzzer sees their branches."""
    np.seterr(all="ignore")  # loops count modulo 2**64
    for kind in (jit._Compiled, jit._Kept, jit._Part):
        kind._make = _itself  # type: ignore[method-assign]
    jit._Intrinsic._make = _modelled  # type: ignore[method-assign]


def _itself(_: Any, function: Any) -> Any:
    return function


def _modelled(_: Any, function: Any) -> Any:
    return MODELS[function.__name__]


def _block(words: Any, first: Any, count: int) -> Any:
    """The words that an instruction reads, all of which must be there."""
    block = words[int(first) : int(first) + count]
    if len(block) != count:
        raise IndexError(f"a block of {count} words at {first} is not in an array of {len(words)}")
    return block


def _members(chosen: Any) -> Any:
    return np.uint64(int.from_bytes(np.packbits(chosen, bitorder="little").tobytes(), "little"))


def _within(words: Any, first: Any, low: Any, span: Any) -> Any:
    bits = 8 * words.itemsize
    magnitudes = _block(words, first, 64) & words.dtype.type((1 << (bits - 1)) - 1)
    above = magnitudes - words.dtype.type(int(low) & (1 << bits) - 1)
    return _members(above <= words.dtype.type(int(span) & (1 << bits) - 1))


def _differing(one: Any, other: Any, first: Any) -> Any:
    return _members(_block(one, first, 64) != _block(other, first, 64))


def _below(words: Any, first: Any, limit: Any) -> Any:
    kind = words.dtype.type
    chosen = _block(words, first, 32) < kind(int(limit) & (1 << 8 * words.itemsize) - 1)
    return np.uint32(_members(chosen))


def _widen(members: Any, words: Any, first: Any) -> None:
    bits = int(members) >> np.arange(32) & 1
    _block(words, first, 32)[:] = bits * 0xFFFFFFFF


def _nth(members: Any, rank: Any) -> Any:
    left = int(members)
    for _ in range(int(rank)):
        left &= left - 1
    if not left:
        raise IndexError(f"{int(members):#x} has no bit of rank {rank}")
    return np.uint64((left & -left).bit_length() - 1)


def _lowest(members: Any) -> Any:
    number = int(members)
    return np.uint64((number & -number).bit_length() - 1)


MODELS = {
    "within": _within,
    "differing": _differing,
    "below": _below,
    "widen": _widen,
    "nth": _nth,
    "popcount": lambda members: np.uint64(int(members).bit_count()),
    "lowest": _lowest,
    "multiply_high": lambda one, other: np.uint64(int(one) * int(other) >> 64),
    "bit_length": lambda value: np.int64((int(value) & _ONES).bit_length()),
}
"""What each intrinsic does, in Python."""
