"""The text of a safetensors header, read as a stranger's: what it says of tensors, checked.

Whatever is read here, the reference implementation reads to the same tensors (the tests compare
them). It is stricter in places: no key twice, no numbers beyond 64 bits, caps on what it may hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from patchc.dtypes import BY_NAME, DType
from patchc.errors import CheckpointError, UnsupportedInputError
from patchc.strict_json import has_more_values, parse_json

MOST_HEADER = 1 << 26
"""Bytes of a header's text."""

MOST_TENSORS = 1 << 18
"""Tensors of one model, as many as a patch file can hold."""

_MOST_COMMAS = 16 * MOST_TENSORS
_MOST_WORDS = (1 << 64) - 1
_MOST_DATA = (1 << 62) - 1
_KEYS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """What a header says of a tensor; it has the bytes from ``start`` to ``end`` of the data."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(
    text: bytes, data_bytes: int | None = None
) -> tuple[dict[str, str], dict[str, Entry]]:
    """Read and check a header.

    Args:
        text: the header, without its length.
        data_bytes: how many bytes follow it in the file; None where that is not known.

    Returns:
        Its metadata, and its tensors by name in the order of the file.

    Raises:
        CheckpointError: it is malformed, or the tensors do not fill the data exactly; names the
            tensor.
        UnsupportedInputError: it holds a dtype that is not known, or too many tensors.
    """
    if has_more_values(text, containers=4 * MOST_TENSORS, commas=_MOST_COMMAS):
        raise _too_many()
    if not text.startswith(b"{"):
        raise CheckpointError("its header is not a JSON object")
    try:
        content = parse_json(text, _compact)
    except ValueError as error:
        raise CheckpointError(f"its header cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError("its header is not a table of tensors")
    metadata = _metadata(content.pop("__metadata__", None))
    if len(content) > MOST_TENSORS:
        raise _too_many()
    for name, entry in content.items():
        if not isinstance(entry, Entry):
            content[name] = _entry(name, entry)
    tensors = dict(sorted(content.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_places(tensors, data_bytes)
    return metadata, tensors


def _too_many() -> UnsupportedInputError:
    return UnsupportedInputError(
        f"its header lists more than the {MOST_TENSORS:,} tensors that a model may have here, or "
        "as many other values; store the model in another way"
    )


def _metadata(content: Any) -> dict[str, str]:
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise CheckpointError("the metadata of its header is not a table of texts")
    return content


def _compact(found: dict[str, Any]) -> Any:
    """An object that describes a tensor becomes small at once; any other stays as it is."""
    return _entry_of(found) if found.keys() == _KEYS and _fault(found) is None else found


def _entry(name: str, found: Any) -> Entry:
    """What is said of a tensor that was not small at once."""
    fault = _fault(found)
    if fault is None:
        return _entry_of(found)
    if fault == "dtype":
        raise UnsupportedInputError(
            f"tensor {name[:80]!r} has dtype {found['dtype'][:40]}, which this version of patchc "
            "does not know; update patchc"
        )
    raise CheckpointError(f"tensor {name[:80]!r}: {fault}")


def _entry_of(found: dict[str, Any]) -> Entry:
    return Entry(BY_NAME[found["dtype"]], tuple(found["shape"]), *found["data_offsets"])


def _fault(found: Any) -> str | None:
    """What is wrong with what is said of a tensor; "dtype" where the dtype is not known."""
    if not isinstance(found, dict) or not found.keys() >= _KEYS:
        return "its dtype, shape or data_offsets are missing"
    shape, offsets = found["shape"], found["data_offsets"]
    if not isinstance(found["dtype"], str):
        return "its dtype is not a text"
    if not _are_sizes(shape):
        return "its shape is not a list of whole numbers from 0 on"
    if not _are_sizes(offsets) or len(offsets) != 2:
        return "its data_offsets are not two whole numbers from 0 on"
    dtype = BY_NAME.get(found["dtype"])
    if dtype is None:
        return "dtype"
    count = 1
    for size in shape:
        count *= size
        if count > _MOST_WORDS:
            break
    bits = count * dtype.bits
    if bits > _MOST_WORDS:
        return "its shape has more words than 64 bits can count"
    if bits % 8:
        return "its shape does not fill whole bytes"
    if offsets[1] - offsets[0] != bits // 8:
        return "its data_offsets do not have the size of its shape"
    return None


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _check_places(tensors: dict[str, Entry], data_bytes: int | None) -> None:
    """Refuse holes, overlaps, and an end that is not that of the file; tensors are sorted."""
    at = 0
    for name, entry in tensors.items():
        if entry.start != at:
            raise CheckpointError(
                f"tensor {name[:80]!r}: its bytes start at {entry.start}, and those before it end "
                f"at {at}"
            )
        at = entry.end
    if at > _MOST_DATA:
        raise CheckpointError(f"its tensors take {at:,} bytes, more than a file can have")
    if data_bytes is not None and at != data_bytes:
        raise CheckpointError(f"its tensors take {at:,} bytes, and it has {data_bytes:,} for them")
