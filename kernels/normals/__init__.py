"""Normal draws: a standard normal number for each entry of a tensor, the same whoever draws.

The four 32-bit draws u of a Philox block (:mod:`patchc.kernels.philox`) become four normal numbers
in float64 by Box and Muller's method ("A note on the generation of random normal deviates", Annals
of Mathematical Statistics 29, 1958). With v = (u + ½) / 2³², two lanes give

    √(−2 ln v₀) · cos 2πv₁  and  √(−2 ln v₀) · sin 2πv₁,

the first two lanes the first two numbers and the last two the others. The largest is below 6.8.

Systems' mathematical libraries round logarithms, sines and cosines differently. So they are
computed here by polynomials, from additions, products, one division and one square root, which IEEE
754 rounds in one way only; within 4 · 10⁻¹⁵ of the true numbers. With t = 2u + 1, v = t / 2³³:

- ln t = e ln 2 + ln m with √½ < m ≤ √2, and ln m = 2 artanh f with f = (m − 1) / (m + 1), by
  the series of artanh up to f¹⁹.
- the angle is that of t less the nearest quarter of a turn, between −π/4 and π/4, by the series of
  sine up to the 15th and of cosine up to the 16th power; quarters swap the two and their signs.
"""

from __future__ import annotations

import math

LOGARITHM = tuple(2.0 / power for power in range(19, 0, -2))
"""The coefficients of 2 artanh f / f in f², the highest power first."""
SINE = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(15, 0, -2))
"""Those of sin x / x in x²."""
COSINE = tuple((-1.0) ** (power // 2) / math.factorial(power) for power in range(16, -1, -2))
"""Those of cos x in x²."""
LN_2 = 0.6931471805599453
ROOT_2 = 1.4142135623730951
TURN = 2.0 * math.pi / 2.0**33
"""The angle of one step of t."""
