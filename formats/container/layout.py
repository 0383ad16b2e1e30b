"""Prologue, trailer and sections of a patch file, and caps on sizes (SPEC.md, sections 2, 5, 7)."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.formats.container.expansion import check_sizes

MAGIC = b"PATCHC\r\n"
END_MAGIC = b"\r\nPATCHC"
MAJOR = 2
MINOR = 0
ADDITIVE = 1 << 0
"""Required feature: the values are additive, and there are no result digests (section 4.4)."""

UPDATE = 1 << 1
"""Required feature: tensors are added, removed or resized, or files change (section 4.7)."""

KNOWN_FEATURES = ADDITIVE | UPDATE
"""Bits of required features that this reader understands."""

FEATURE_NAMES = {ADDITIVE: "additive", UPDATE: "update"}

DEFAULT_CHUNK_BITS = 20
CHUNK_BITS = range(12, 23)
"""Permitted log2 of the number of words in a chunk."""

MAX_METADATA = 8 << 20
MAX_INDEX = 1 << 28
MAX_SIGNATURE_SECTION = 1 << 16
MAX_TENSORS = 1 << 18
MAX_CHUNKS = 1 << 21
MAX_NAME = 4096
MAX_NAMES = 1 << 26
"""Bytes of all tensor names together, expanded: shared prefixes are stored once."""

MAX_RANK = 16
TRUNCATED = ": it is truncated or damaged; fetch it again"
"""What to do about a file that ends too early, after what is wrong with it."""

PROLOGUE = struct.Struct("<8sHHBBH")
TRAILER = struct.Struct("<QQQQQQ32sQ8s")
TRAILER_ROOT_OFFSET = 48
"""The trailer's bytes before its root digest; the root covers them."""


@dataclass(frozen=True)
class Trailer:
    """The last bytes of a patch file (SPEC.md, section 5)."""

    index_offset: int
    index_stored: int
    index_size: int
    metadata_stored: int
    metadata_size: int
    features: int
    root: bytes
    signature_size: int = 0

    @property
    def metadata_offset(self) -> int:
        """Where the metadata starts."""
        return self.index_offset + self.index_stored

    @property
    def signature_offset(self) -> int:
        """Where the signature section starts, which is empty in a file that is not signed."""
        return self.metadata_offset + self.metadata_stored

    def pack(self) -> bytes:
        """The trailer's bytes."""
        return TRAILER.pack(*astuple(self), END_MAGIC)


def pack_prologue(chunk_words: int) -> bytes:
    """The first bytes of a patch file; ``chunk_words`` is a power of two."""
    return PROLOGUE.pack(MAGIC, MAJOR, MINOR, chunk_words.bit_length() - 1, 0, 0)


def parse_prologue(data: bytes) -> int:
    """Check the prologue and return the words in a chunk.

    Raises:
        PatchFormatError: not a patch file, or a damaged prologue.
        UnsupportedPatchError: another major version.
    """
    magic, major, minor, chunk_bits, reserved, reserved_2 = PROLOGUE.unpack(data)
    if magic != MAGIC:
        raise PatchFormatError(
            "not a patch file: it does not start as patches do; name the file that build, diff, "
            "fold or fix wrote"
        )
    if major != MAJOR:
        remedy = "build the patch again" if major < MAJOR else "update patchc"
        raise UnsupportedPatchError(
            f"format version {major}.{minor} is not supported; this patchc reads version {MAJOR}. "
            f"To go on, {remedy}"
        )
    if chunk_bits not in CHUNK_BITS or reserved or reserved_2:
        raise PatchFormatError("the prologue is damaged: a field is out of range")
    return 1 << int(chunk_bits)


def parse_trailer(data: bytes, file_size: int) -> Trailer:
    """Check the trailer against the file's size and the caps.

    Raises:
        PatchFormatError: truncated, or a field out of range.
        UnsupportedPatchError: a required feature that this reader does not have.
    """
    *fields, magic = TRAILER.unpack(data)
    if magic != END_MAGIC:
        raise PatchFormatError(f"the file does not end with the trailer{TRUNCATED}")
    trailer = Trailer(*fields)
    unknown = trailer.features & ~KNOWN_FEATURES
    if unknown:
        bits = [str(bit) for bit in range(64) if unknown >> bit & 1]
        raise UnsupportedPatchError(
            f"the patch requires feature {', '.join(bits)}, "
            "which this patchc does not have; update it"
        )
    if trailer.metadata_size > MAX_METADATA or trailer.index_size > MAX_INDEX:
        raise PatchFormatError("the trailer declares an index or metadata above the size cap")
    if trailer.signature_size > MAX_SIGNATURE_SECTION:
        raise PatchFormatError(
            f"the trailer declares a signature section of {trailer.signature_size:,} bytes, and "
            f"{MAX_SIGNATURE_SECTION:,} are the most"
        )
    check_sizes("index", trailer.index_stored, trailer.index_size)
    check_sizes("metadata", trailer.metadata_stored, trailer.metadata_size)
    end = trailer.signature_offset + trailer.signature_size + TRAILER.size
    if trailer.index_offset < PROLOGUE.size or end != file_size:
        raise PatchFormatError("the trailer's offsets do not add up to the file's size")
    return trailer


def is_tensor_name(name: str) -> bool:
    """Whether a tensor's name may stand in a patch file: printable, not path-like, not too long."""
    acceptable = name.isprintable() and "/" not in name and "\\" not in name
    return acceptable and 0 < len(name.encode()) <= MAX_NAME


def chunks_in_grid(words: int, chunk_words: int) -> int:
    """Chunks of the fixed grid in a tensor of ``words`` words."""
    return -(-words // chunk_words)
