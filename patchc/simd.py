"""Blocks of 64 words, in which words of a range of magnitudes are found all at once.

What a set of words in a block is, is told by the bits of one number, that of the first word lowest.
The comparison of a block is one operation on a vector of 64 words in LLVM's language, which becomes
a few instructions on any processor with vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, generated

BLOCK = 64

_BYTES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)


def _places() -> NDArray[np.uint8]:
    """By rank and byte, the number of the bit that has as many set bits below it."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return np.argsort(1 - bits, axis=1, kind="stable").T.astype(np.uint8).copy()


_PLACES = _places()


@generated
def within(_: Any, words: Any, first: Any, low: Any, span: Any) -> Any:
    """Which of the block's words, all from ``words[first]`` on, have a magnitude in a range.

    A magnitude is a word without its highest bit; the range is ``low`` … ``low + span``. The block
    must lie in the array: nothing checks that.
    """
    from llvmlite import ir
    from numba import types

    _check(words)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        width = words.dtype.bitwidth
        lane = ir.IntType(width)
        vector = ir.VectorType(lane, BLOCK)

        def spread(value: Any) -> Any:
            return _spread(builder, value if width == 64 else builder.trunc(value, lane), vector)

        held = _load(context, builder, words, arguments[0], arguments[1], vector)
        magnitudes = builder.and_(held, ir.Constant(vector, [(1 << (width - 1)) - 1] * BLOCK))
        above = builder.sub(magnitudes, spread(arguments[2]))
        inside = builder.icmp_unsigned("<=", above, spread(arguments[3]))
        return builder.bitcast(inside, ir.IntType(BLOCK))

    unsigned = types.uint64
    return unsigned(words, unsigned, unsigned, unsigned), generate


@generated
def differing(_: Any, one: Any, other: Any, first: Any) -> Any:
    """Which of the block's words, all from ``first`` on, differ between two arrays of one type."""
    from llvmlite import ir
    from numba import types

    _check(one, other)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(one.dtype.bitwidth), BLOCK)
        held = [
            _load(context, builder, array, value, arguments[2], vector)
            for array, value in ((one, arguments[0]), (other, arguments[1]))
        ]
        return builder.bitcast(builder.icmp_unsigned("!=", *held), ir.IntType(BLOCK))

    return types.uint64(one, other, types.uint64), generate


@generated
def popcount(_: Any, members: Any) -> Any:
    """How many bits of a 64-bit number are set."""
    from numba import types

    return types.uint64(types.uint64), lambda _, builder, __, values: builder.ctpop(values[0])


@generated
def lowest(_: Any, members: Any) -> Any:
    """The number of the lowest bit set in a 64-bit number other than 0."""
    from llvmlite import ir
    from numba import types

    false = ir.Constant(ir.IntType(1), 0)
    return types.uint64(types.uint64), lambda _, builder, __, values: builder.cttz(values[0], false)


@generated
def multiply_high(_: Any, one: Any, other: Any) -> Any:
    """The upper 64 bits of the product of two 64-bit numbers."""
    from llvmlite import ir
    from numba import types

    wide = ir.IntType(128)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        factors = [builder.zext(value, wide) for value in arguments]
        product = builder.lshr(builder.mul(*factors), ir.Constant(wide, 64))
        return builder.trunc(product, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@generated
def bit_length(_: Any, value: Any) -> Any:
    """Bits of a 64-bit number, 0 for 0."""
    from llvmlite import ir
    from numba import types

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(ir.Constant(ir.IntType(64), 64), zeros)

    return types.int64(types.uint64), generate


@generated
def below(_: Any, words: Any, first: Any, limit: Any) -> Any:
    """Which of 32 words, all from ``words[first]`` on, are smaller than ``limit``: 32 bits."""
    from llvmlite import ir
    from numba import types

    _check(words)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(words.dtype.bitwidth), 32)
        held = _load(context, builder, words, arguments[0], arguments[1], vector)
        limits = _spread(builder, arguments[2], vector)
        return builder.bitcast(builder.icmp_unsigned("<", held, limits), ir.IntType(32))

    return types.uint32(words, types.uint64, words.dtype), generate


@generated
def widen(_: Any, members: Any, words: Any, first: Any) -> Any:
    """Write each bit of a 32-bit number into a 32-bit word of its own: all ones where it is set.

    The 32 words from ``words[first]`` on must lie in the array: nothing checks that.
    """
    from llvmlite import ir
    from numba import types

    _check(words)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.VectorType(ir.IntType(1), 32))
        vector = ir.VectorType(ir.IntType(32), 32)
        place = _place(context, builder, words, arguments[1], arguments[2], vector)
        builder.store(builder.sext(bits, vector), place, align=4)
        return context.get_dummy_value()

    return types.none(types.uint32, words, types.uint64), generate


def _check(*arrays: Any) -> None:
    from numba.core.errors import TypingError

    if any(array.layout != "C" for array in arrays):
        raise TypingError("the words of a block must lie one after the other")


def _load(context: Any, builder: Any, kind: Any, value: Any, first: Any, vector: Any) -> Any:
    place = _place(context, builder, kind, value, first, vector)
    return builder.load(place, align=kind.dtype.bitwidth // 8)


def _place(context: Any, builder: Any, kind: Any, value: Any, first: Any, vector: Any) -> Any:
    array = context.make_array(kind)(context, builder, value)
    return builder.bitcast(builder.gep(array.data, [first]), vector.as_pointer())


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    from llvmlite import ir

    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _index(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _index(value: int) -> Any:
    from llvmlite import ir

    return ir.Constant(ir.IntType(32), value)


@generated
def nth(_: Any, members: Any, rank: Any) -> Any:
    """The number of the set bit that has ``rank`` set bits below it; there must be one."""
    from llvmlite import ir
    from numba import types

    word = ir.IntType(64)
    signature = types.uint64(types.uint64, types.uint64)

    def generate(context: Any, builder: Any, own: Any, values: Any) -> Any:
        if not _deposits_bits():
            return context.compile_internal(builder, nth_by_table, own, values)
        deposit = builder.module.declare_intrinsic(
            "llvm.x86.bmi.pdep.64", (), ir.FunctionType(word, [word, word])
        )
        bit = builder.shl(ir.Constant(word, 1), values[1])
        found = builder.call(deposit, [bit, values[0]])
        return builder.cttz(found, ir.Constant(ir.IntType(1), 0))

    return signature, generate


def _deposits_bits() -> bool:
    """Whether the processor that is compiled for deposits bits in a few cycles."""
    from llvmlite import binding
    from numba.core import config

    if config.CPU_NAME or config.CPU_FEATURES is not None:
        return False
    slow = ("bdver", "znver1", "znver2")  # a microprogram, of many cycles for each bit
    fast = not binding.get_host_cpu_name().startswith(slow)
    return fast and bool(binding.get_host_cpu_features().get("bmi2"))


def nth_by_table(members: Integer, rank: Integer) -> Integer:
    """What :func:`nth` is on any processor.

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
