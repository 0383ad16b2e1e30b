"""Golden vectors of the shared arithmetic; every backend is held to the same ones."""

from __future__ import annotations

# Random123's known answers for philox4x32-10: zeros, all ones, digits of pi.
KNOWN_ANSWERS = {
    "zeros": (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    "ones": (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}
NAME = "model.layers.0.mlp.up_proj.weight"
# Component, seed, retain, first flat index, and the masks of 256 entries, eight a byte.
GOLDEN_MASKS = (
    ("se", 0, 0.3, 0, "1400f21c280860048e01c05c08772ac981246202be88810ccd28600152a98450"),
    ("osm", 0, 0.3, 0, "0a94734214c348401010001080418010120023cba0072c088a00021041808a0c"),
    ("se", 2**64 - 1, 0.5, 0, "cc8887782ccf0acc83967c1e61facbb17528b2cbc306f93e167f958c6d188602"),
    ("se", 1, 0.9, 2**34 + 8, "fbffefff5a3faffbbdeff5fffdfffe7fbffefffffffffbfefbffbefed7fffbef"),
)
# Dtype, an fp32 value as bits, and its word; −1 where it is not finite or overflows.
ROUNDINGS = (
    ("BF16", 0x3F800000, 0x3F80),
    ("BF16", 0x3F808000, 0x3F80),  # ties to even, down
    ("BF16", 0x3F818000, 0x3F82),  # and up
    ("BF16", 0x3F808001, 0x3F81),
    ("BF16", 0x80000000, 0x8000),
    ("BF16", 0x00008000, 0x0000),  # subnormal
    ("BF16", 0x00008001, 0x0001),
    ("BF16", 0x00018000, 0x0002),
    ("BF16", 0x7F7F7FFF, 0x7F7F),
    ("BF16", 0x7F7F8000, -1),
    ("BF16", 0x7FC00000, -1),
    ("BF16", 0xFF800000, -1),
    ("F16", 0x3F800000, 0x3C00),
    ("F16", 0x477FEFFF, 0x7BFF),
    ("F16", 0x477FF000, -1),  # 65520
    ("F16", 0x33000000, 0x0000),  # 2⁻²⁵, half of the smallest
    ("F16", 0xB3000000, 0x8000),
    ("F16", 0x33000001, 0x0001),
    ("F16", 0x33C00000, 0x0002),
    ("F16", 0x387FFFFF, 0x0400),  # rounds up to the smallest normal
    ("F8_E4M3", 0x3F800000, 0x38),
    ("F8_E4M3", 0x43E80000, 0x7E),  # 464, a tie that stays finite
    ("F8_E4M3", 0x43E80001, -1),
    ("F8_E4M3", 0x3A800000, 0x00),
    ("F8_E4M3", 0xBA800001, 0x81),
    ("F8_E5M2", 0x3F800000, 0x3C),
    ("F8_E5M2", 0x476FFFFF, 0x7B),
    ("F8_E5M2", 0x47700000, -1),  # 61440, a tie that overflows
    ("F8_E5M2", 0x37000001, 0x01),
    ("F32", 0x80000001, 0x80000001),
    ("F32", 0x7F7FFFFF, 0x7F7FFFFF),
    ("F32", 0x7F800000, -1),
)
