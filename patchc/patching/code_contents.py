"""Contents that are run whatever their file is called: programs, scripts, pickles, archives."""

from __future__ import annotations

import pickletools
import re
from itertools import islice

Content = bytes | memoryview

_STARTS = {
    b"#!": "a script",
    b"\x7fELF": "native code",
    b"!<arch>\n": "native code",
    b"\x00asm": "native code",
    b"BC\xc0\xde": "native code",
    b"\xca\xfe\xba\xbe": "native code",
    b"\xca\xfe\xba\xbf": "native code",
    b"\xfe\xed\xfa\xce": "native code",
    b"\xfe\xed\xfa\xcf": "native code",
    b"\xce\xfa\xed\xfe": "native code",
    b"\xcf\xfa\xed\xfe": "native code",
    b"\x89HDF\r\n\x1a\n": "a Keras or TensorFlow model",
    b"PK\x03\x04": "a ZIP archive, as PyTorch, Keras and Python run",
    b"PK\x05\x06": "a ZIP archive, as PyTorch, Keras and Python run",
}
_START = 1 << 12
_MARK = b"\xef\xbb\xbf"
_ZIP_END, _ZIP_TAIL = b"PK\x05\x06", 22 + 0xFFFF
_BINARY_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_ARGUMENTS = {"MARK", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_PICKLE_START, _PICKLE_STEPS = 1 << 20, 10_000
_COMPILED_PYTHON = re.compile(rb".[\x0c-\x0f]\r\n", re.S)
_ARRAY, _HEADER = re.compile(rb"\x93NUMPY(.).", re.S), 1 << 16
_TAR, _TAR_AT = b"ustar", 257


def reason_by_content(content: Content) -> str | None:
    """Say what a content is that is run; None for others.

    Only its first and last bytes are looked at.
    """
    start = bytes(content[:_START]).removeprefix(_MARK)
    for magic, reason in _STARTS.items():
        if start.startswith(magic):
            return reason
    if start.startswith(b"MZ") and b"\0" in start[:64]:
        return "native code"
    if _COMPILED_PYTHON.match(start):
        return "Python code"
    if _is_pickle(content, start):
        return "a pickle"
    if start[_TAR_AT:].startswith(_TAR):
        return "a tar archive, as PyTorch runs"
    if _ZIP_END in bytes(content[-_ZIP_TAIL:]):
        return _STARTS[_ZIP_END]
    return None


def _is_pickle(content: Content, start: bytes) -> bool:
    if _BINARY_PICKLE.match(start):
        return True
    if array := _ARRAY.match(start):
        width = 2 if array[1] == b"\1" else 4
        first, length = 8 + width, int.from_bytes(start[8 : 8 + width], "little")
        header = bytes(content[first : first + length]) if length < _HEADER else b""
        return not header or b"O" in header  # the code of objects in a dtype
    return _calls_as_pickle(content)


def _calls_as_pickle(content: Content) -> bool:
    """Whether a content, read as a pickle of an old protocol, gets as far as a call.

    Those have no mark of their own at the start, and are plain text.
    """
    seen = set()
    steps = pickletools.genops(bytes(content[:_PICKLE_START]))
    try:
        for step, _, _ in islice(steps, _PICKLE_STEPS):
            seen.add(step.name)
            if step.name in _CALLS and seen & _ARGUMENTS:
                return True
    except ValueError:
        return False
    return len(seen) > 1 and "STOP" not in seen
