"""Small floats to fp32 and back, on integer bits: the same result on every backend.

Casts are not portable (some backends truncate), so the rounding to nearest, ties to even, is done
by integer arithmetic here and in every other backend. A format is named by its dtype code (see
:mod:`patchc.dtypes`); F32, F16, BF16, F8_E4M3 and F8_E5M2 are known.
"""
