"""Every byte of a signed patch counts: any flip and any cut is refused, for its own reason."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from golden_patch import golden_bytes
from signed_patches import FIRST, SECOND, refused, signed

from patchc.errors import PatchcError
from patchc.formats import open_patch

DATA = signed(golden_bytes(), FIRST, SECOND)
_ROOT = "root digest does not match"
_SIZES = f"do not add up|above the size cap|(size can take|stored bytes cannot hold)|{_ROOT}"


def _regions() -> list[tuple[str, range, str]]:
    """Name, place, and the reasons that a change there may have."""
    end = len(DATA) - 96
    index, stored, _, metadata, _, _ = struct.unpack("<6Q", DATA[end : end + 48])
    text = index + stored
    section = text + metadata
    return [
        ("magic", range(8), "not a patch file"),
        ("major", range(8, 10), "format version"),
        ("minor", range(10, 12), _ROOT),
        ("chunk_bits", range(12, 13), f"prologue is damaged|{_ROOT}"),
        ("reserved", range(13, 16), "prologue is damaged"),
        ("bodies", range(16, index), "its bytes are damaged"),
        ("index", range(index, text), _ROOT),
        ("metadata", range(text, section), _ROOT),
        ("digest of the section", range(section, section + 32), "signature section is damaged"),
        ("envelope", range(section + 32, end), "signature section is damaged"),
        ("offset and sizes", range(end, end + 40), _SIZES),
        ("features", range(end + 40, end + 48), f"requires feature|{_ROOT}"),
        ("root", range(end + 48, end + 80), _ROOT),
        ("signature_size", range(end + 80, end + 88), "do not add up|65,536 are the most"),
        ("end magic", range(end + 88, end + 96), "does not end with the trailer"),
    ]


def _read(path: Path) -> str:
    """Read the whole patch; the message of the refusal, or nothing."""

    def read() -> None:
        with open_patch(path) as patch:
            patch.check_bodies()

    return refused(PatchcError, read)


def test_every_flip_is_refused_for_the_reason_of_its_place(tmp_path: Path) -> None:
    path, tried = tmp_path / "x.patchc", 0
    path.write_bytes(DATA)
    assert not _read(path)
    with path.open("r+b", buffering=0) as file:
        for name, places, reason in _regions():
            for place in places:
                for bits in (1 << place % 8, 0xFF):
                    os.pwrite(file.fileno(), bytes([DATA[place] ^ bits]), place)
                    message = _read(path)
                    assert re.search(reason, message), (name, place, bits, message)
                    assert str(path) in message
                    tried += 1
                os.pwrite(file.fileno(), DATA[place : place + 1], place)
    assert not _read(path)
    assert tried == 2 * len(DATA)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(DATA + b"\0")
    assert "does not end with the trailer" in _read(path)
    for size in reversed(range(len(DATA))):
        os.truncate(path, size)
        reason = "too short|does not end with the trailer|not a patch file"
        assert re.search(reason, _read(path)), size


def test_a_section_that_is_cut_out_leaves_an_unsigned_file(tmp_path: Path) -> None:
    """No format can prevent that; what requires a signature refuses the file."""
    path = tmp_path / "x.patchc"
    path.write_bytes(golden_bytes())
    assert not _read(path)
    with open_patch(path) as patch:
        assert patch.signatures is None
