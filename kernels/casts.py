"""Words of one small float dtype as words of another, the same on every backend.

Each word goes to fp32, which is exact, and is rounded once to the other dtype, to nearest, ties to
even. A value that is not finite, or does not fit, becomes the word 0: the outcome is only something
that steps are taken from.
"""

from __future__ import annotations

from patchc.dtypes import Words
from patchc.jit import compiled
from patchc.kernels.rounding.cpu import from_fp32, to_fp32


@compiled
def cast(words: Words, code: int, to_code: int, out: Words) -> None:
    """Cast ``words`` of the dtype ``code`` into ``out``, as long, of the dtype ``to_code``.

    Both are among F32, F16, BF16, F8_E4M3 and F8_E5M2.
    """
    for i in range(words.size):
        word = from_fp32(to_fp32(words[i], code), to_code)
        out[i] = word if word > 0 else 0
