"""Normal draws: a standard normal number for each entry of a tensor, the same whoever draws.

The four 32-bit draws u of a Philox block (:mod:`patchc.kernels.philox`) become four normal numbers
in float64 by Box and Muller's method ("A note on the generation of random normal deviates", Annals
of Mathematical Statistics 29, 1958). With v = (u + ½) / 2³², two lanes give

    √(−2 ln v₀) · cos 2πv₁  and  √(−2 ln v₀) · sin 2πv₁,

the first two lanes the first two numbers and the last two the others. The largest is below 6.8.
Logarithm, sine and cosine are those of the system's mathematical library, so that two systems may
differ in the last bit.
"""
