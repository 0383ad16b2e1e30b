"""Comparison of 64 words at once, and operations on the bits of one number.

A set of words in a block of 64 is one number: the first word's bit is the lowest. A block is
compared by one operation on a vector of 64 words in LLVM's language, which becomes a few
instructions on any processor with vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, intrinsic

BLOCK = 64

_BYTES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)


def _places() -> NDArray[np.uint8]:
    """By rank and byte: the number of the bit with as many set bits below it as the rank says."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return np.argsort(1 - bits, axis=1, kind="stable").T.astype(np.uint8).copy()


_PLACES = _places()


def _ir() -> Any:
    """LLVM's types, imported when the first loop is compiled."""
    from llvmlite import ir

    return ir


class _Words(NamedTuple):
    """An array of words, in the code of a call: the address of the first one, and their width."""

    address: Any
    bits: int


def _intrinsic(result: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make an intrinsic of a function that writes the code of a call with an LLVM builder.

    The function takes arrays as :class:`_Words`, and anything else as a number of 64 bits.
    """

    def make(write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def typed(_: Any, *arguments: Any) -> Any:
            from numba import types
            from numba.core.errors import TypingError

            if any(getattr(one, "layout", "C") != "C" for one in arguments):
                raise TypingError("the words of a block must lie one after the other")
            kinds = [one if isinstance(one, types.Array) else types.uint64 for one in arguments]

            def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
                pairs = zip(kinds, values, strict=True)
                taken = [_taken(context, builder, kind, value) for kind, value in pairs]
                return write(builder, *taken) or context.get_dummy_value()

            return getattr(types, result)(*kinds), generate

        return intrinsic(typed)

    return make


def _taken(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if value.type == _ir().IntType(64):
        return value
    array = context.make_array(kind)(context, builder, value)
    return _Words(array.data, kind.dtype.bitwidth)


@_intrinsic("uint64")
def within(builder: Any, words: Any, first: Any, low: Any, span: Any) -> Any:
    """Which of the 64 words from ``words[first]`` on have a magnitude in a range.

    A magnitude is a word without its highest bit; the range is ``low`` … ``low + span``. The block
    must lie in the array: nothing checks that.
    """
    block = _load(builder, words, first, BLOCK)
    magnitudes = builder.and_(block, block.type((1 << (words.bits - 1)) - 1))
    above = builder.sub(magnitudes, _spread(builder, low, block.type))
    inside = builder.icmp_unsigned("<=", above, _spread(builder, span, block.type))
    return builder.bitcast(inside, _ir().IntType(BLOCK))


@_intrinsic("uint64")
def differing(builder: Any, one: Any, other: Any, first: Any) -> Any:
    """Which of the 64 words from ``first`` on differ between two arrays of one type."""
    blocks = [_load(builder, words, first, BLOCK) for words in (one, other)]
    return builder.bitcast(builder.icmp_unsigned("!=", *blocks), _ir().IntType(BLOCK))


@_intrinsic("uint64")
def popcount(builder: Any, members: Any) -> Any:
    """How many bits of a 64-bit number are set."""
    return builder.ctpop(members)


@_intrinsic("uint64")
def lowest(builder: Any, members: Any) -> Any:
    """The number of the lowest bit set in a 64-bit number other than 0."""
    return builder.cttz(members, _ir().IntType(1)(0))


@_intrinsic("uint64")
def multiply_high(builder: Any, one: Any, other: Any) -> Any:
    """The upper 64 bits of the product of two 64-bit numbers."""
    wide = _ir().IntType(128)
    product = builder.mul(builder.zext(one, wide), builder.zext(other, wide))
    return builder.trunc(builder.lshr(product, wide(64)), one.type)


@_intrinsic("int64")
def bit_length(builder: Any, value: Any) -> Any:
    """Bits of a 64-bit number, 0 for 0."""
    return builder.sub(value.type(64), builder.ctlz(value, _ir().IntType(1)(0)))


@_intrinsic("uint32")
def below(builder: Any, words: Any, first: Any, limit: Any) -> Any:
    """Which of the 32 words from ``words[first]`` on are smaller than ``limit``: 32 bits."""
    block = _load(builder, words, first, 32)
    smaller = builder.icmp_unsigned("<", block, _spread(builder, limit, block.type))
    return builder.bitcast(smaller, _ir().IntType(32))


@_intrinsic("none")
def widen(builder: Any, members: Any, words: Any, first: Any) -> None:
    """Write each bit of a 32-bit number into a 32-bit word of its own: all ones where it is set.

    The 32 words from ``words[first]`` on must lie in the array: nothing checks that.
    """
    bits = builder.bitcast(
        builder.trunc(members, _ir().IntType(32)), _ir().VectorType(_ir().IntType(1), 32)
    )
    address = _address(builder, words, first, 32)
    builder.store(builder.sext(bits, address.type.pointee), address, align=4)


def _load(builder: Any, words: _Words, first: Any, count: int) -> Any:
    return builder.load(_address(builder, words, first, count), align=words.bits // 8)


def _address(builder: Any, words: _Words, first: Any, count: int) -> Any:
    vector = _ir().VectorType(_ir().IntType(words.bits), count)
    return builder.bitcast(builder.gep(words.address, [first]), vector.as_pointer())


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    """The low bits of a number, in every word of a vector."""
    index = _ir().IntType(32)
    word = value if value.type == vector.element else builder.trunc(value, vector.element)
    one = builder.insert_element(vector(_ir().Undefined), word, index(0))
    return builder.shuffle_vector(
        one, vector(_ir().Undefined), _ir().VectorType(index, vector.count)(0)
    )


@intrinsic
def nth(_: Any, members: Any, rank: Any) -> Any:
    """The number of the set bit that has ``rank`` set bits below it; there must be one."""
    from numba import types

    word = _ir().IntType(64)
    signature = types.uint64(types.uint64, types.uint64)

    def generate(context: Any, builder: Any, own: Any, values: Any) -> Any:
        if not _deposits_bits():
            return context.compile_internal(builder, nth_by_table, own, values)
        deposit = builder.module.declare_intrinsic(
            "llvm.x86.bmi.pdep.64", (), _ir().FunctionType(word, [word, word])
        )
        bit = builder.shl(word(1), values[1])
        return builder.cttz(builder.call(deposit, [bit, values[0]]), _ir().IntType(1)(0))

    return signature, generate


def _deposits_bits() -> bool:
    """Whether the processor that Numba compiles for deposits bits in a few cycles."""
    from llvmlite import binding
    from numba.core import config

    if config.CPU_NAME or config.CPU_FEATURES is not None:
        return False
    slow = ("bdver", "znver1", "znver2")  # a microprogram, of many cycles for each bit
    fast = not binding.get_host_cpu_name().startswith(slow)
    return fast and bool(binding.get_host_cpu_features().get("bmi2"))


def nth_by_table(members: Integer, rank: Integer) -> Integer:
    """The same as :func:`nth`, on any processor.

    Vigna, "Broadword implementation of rank/select queries" (2008).
    """
    sums = members - ((members >> np.uint64(1)) & np.uint64(0x5555555555555555))
    sums = (sums & np.uint64(0x3333333333333333)) + (
        (sums >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    sums = ((sums + (sums >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)) * _BYTES
    passed = ((rank * _BYTES) | _HIGH) - sums
    byte = popcount(passed & _HIGH) << np.uint64(3)
    rank -= ((sums << np.uint64(8)) >> byte) & np.uint64(0xFF)
    return byte + np.uint64(_PLACES[rank, (members >> byte) & np.uint64(0xFF)])
