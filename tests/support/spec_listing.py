"""The specification's text, and the bytes that its worked examples list."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from patchc.formats.container.layout import TRAILER

SPEC = (Path(__file__).parents[2] / "formats" / "SPEC.md").read_text()


def listing(section: str) -> bytes:
    """The bytes of a listing in the specification; its offsets must be right."""
    text = SPEC.split(f"### {section} ")[1].split("###")[0]
    listed = b""
    for offset, row in re.findall(r"^\| (\d+) \| `([0-9A-F ]+)` \|", text, re.M):
        assert int(offset) == len(listed)
        listed += bytes.fromhex(row)
    return listed


def sections(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Everything before the index, the expanded index, the expanded metadata."""
    offset, stored, _, metadata_stored, *_ = TRAILER.unpack(data[-TRAILER.size :])
    end = offset + stored
    index, metadata = data[offset:end], data[end : end + metadata_stored]
    return data[:offset], zlib.decompress(index), zlib.decompress(metadata)
