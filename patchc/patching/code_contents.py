"""Contents that are run whatever their file is called: programs, scripts, pickles, archives."""

from __future__ import annotations

import pickletools
import re
import tarfile
from collections.abc import Iterator
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
_CALLS = {"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
_ARGUMENTS = {"MARK", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_IMPORTS = {"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
_STEPS, _MOST_STEPS = {ord(step.code): step for step in pickletools.opcodes}, 2000
_LINE, _MODULE_AND_NAME = (
    re.compile(rb"[^\n]*+\n"),
    re.compile(rb"[\w.\x80-\xff-]++\n[^\n]++\n"),
)
_COUNTS = {  # how a step says how long its argument is: bytes of that number, and its sign
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
_COMPILED_PYTHON = re.compile(rb".[\x0c-\x0f]\r\n", re.S)
_ARRAY, _HEADER = re.compile(rb"\x93NUMPY(.).", re.S), 1 << 16
_NUMBERS = re.compile(
    rb"\{'descr': '[<>|=]?[?bBhHiIlLqQfFdDgGcSUVmM]\d*(\[\w+\])?', "
    rb"'fortran_order': (False|True), 'shape': \([\d, ]*\), \}\s*"
)
"""The header of an array as NumPy writes it; others may name objects in many forms."""


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
    if _is_tar(start):
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
        return not _NUMBERS.fullmatch(header)
    return _calls_as_pickle(content)


def _calls_as_pickle(content: Content) -> bool:
    """Whether a content, read as a pickle of an old protocol, gets as far as a call.

    Those have no mark of their own at the start, and are plain text.
    """
    seen: set[str] = set()
    number = 0
    for number, step in enumerate(islice(_steps(content), _MOST_STEPS), 1):
        if step == "INST" and "MARK" in seen:
            return True
        if seen & _IMPORTS:
            if step in _CALLS and seen & _ARGUMENTS:
                return True
            if step == "BUILD" and number > 2:  # an object and its state are there
                return True
        seen.add(step)
    return number == _MOST_STEPS


def _steps(content: Content) -> Iterator[str]:
    """The names of a pickle's steps, up to what is none.

    Arguments are passed over and not read: unpicklers do not agree on which are sound.
    """
    at = 0
    while at < len(content):
        step = _STEPS.get(content[at])
        if step is None:
            return
        at += 1
        if step.arg is not None:
            if step.arg.n == pickletools.UP_TO_NEWLINE:
                lines = _MODULE_AND_NAME if step.name in ("GLOBAL", "INST") else _LINE
                match = lines.match(content, at)
                if match is None:
                    return
                at = match.end()
            elif step.arg.n < 0:
                width, signed = _COUNTS[step.arg.n]
                count = int.from_bytes(content[at : at + width], "little", signed=signed)
                if count < 0:
                    return
                at += width + count
            else:
                at += step.arg.n
        yield step.name


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
