"""Arithmetic of task vectors: τ = fp32(tuned) − fp32(base), their sums, elections and addition.

Everything is fp32, each product, sum and quotient rounded on its own, models in the order given;
no contraction into fused multiply-adds. A value is rounded to the base's dtype once, at the end.
"""
