"""What a file is that is not what it should be, told by its first bytes, and what to do then."""

from __future__ import annotations

ORDER = "patch and model may be swapped, and --help shows their order"
"""What to do about a model where a patch is taken, or the other way round."""

START_BYTES = 64
"""How many of a file's first bytes tell its kind."""

_UTF_16 = "UTF-16 text; save it as UTF-8"
_PATCH = b"PATCHC\r\n"
_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_KINDS = {
    _POINTER: "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"PK\x03\x04": "a spreadsheet or ZIP archive; save the sheet as text, or unpack the archive",
    b"PAR1": "a Parquet file; write its rows as JSON lines",
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"BZh": "compressed with bzip2; unpack it",
    b"\xfd7zXZ": "compressed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it",
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
}


def other_kind(start: bytes, instead: str = "name another file") -> str | None:
    """Say of what kind a file is that is not of the expected one; None where it is not known.

    Args:
        start: its first :data:`START_BYTES` bytes, or all of them.
        instead: what to do about a patch or a model; :data:`ORDER` where one takes the other.
    """
    if not start:
        return "empty; fetch or write it again"
    if start.lstrip().lower().startswith(_PAGES):
        return "a web page and not the file behind it; download the file itself"
    if start[4:10] == b'\0\0\0\0{"':  # behind the length of a header
        return f"a safetensors file, as models are; {instead}"
    if start.startswith(_PATCH):
        return f"a patch; {instead}"
    return next((kind for begin, kind in _KINDS.items() if start.startswith(begin)), None)


def stand_in(start: bytes, is_page: bool = False) -> str | None:
    """Say what stands in a file's place after a download that went wrong; None: nothing known.

    Args:
        start: the file's first :data:`START_BYTES` bytes, or all of them.
        is_page: whether the file itself may begin as a web page does.
    """
    page = not is_page and start.lstrip().lower().startswith(_PAGES)
    return other_kind(start) if page or not start or start.startswith(_POINTER) else None
