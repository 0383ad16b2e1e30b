"""Messages from a rank to rank 0: its coded chunks, and a report on each of its tensors.

A chunk's message is a line of JSON, with digests in hexadecimal, and the body. A report is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile, gettempdir
from typing import Any

from patchc.formats import ChunkRecord, EncodedChunk
from patchc.formats.change_bits import ChangeBits
from patchc.runtime.ranks import Ranks
from patchc.system_errors import storage_errors

TensorReport = Mapping[str, Any]
"""A report on a tensor whose chunks are all coded, as JSON values."""

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class CodedChunk:
    """A chunk's full digests, and its coding if it changes; additive values have no result."""

    base_digest: bytes
    result_digest: bytes | None
    encoded: EncodedChunk | None


def pack_chunk(coded: CodedChunk) -> bytes:
    """A coded chunk as a message."""
    head: dict[str, Any] = {"digests": [coded.base_digest.hex()]}
    if coded.result_digest is not None:
        head["digests"].append(coded.result_digest.hex())
    if coded.encoded is None:
        return json.dumps(head).encode() + b"\n"
    head["record"] = hex_digests(vars(coded.encoded.record))
    head["body"] = coded.encoded.digest.hex()
    head["bits"] = [coded.encoded.bits.positions, coded.encoded.bits.values]
    return json.dumps(head).encode() + b"\n" + coded.encoded.body


def unpack_chunk(message: bytes) -> CodedChunk:
    """Undo :func:`pack_chunk`."""
    line, _, body = message.partition(b"\n")
    head = json.loads(line)
    base, result = [*map(bytes.fromhex, head["digests"]), None][:2]
    encoded = None
    if "record" in head:
        fields: dict[str, Any] = {
            name: bytes.fromhex(one) if isinstance(one, str) else one
            for name, one in head["record"].items()
        }
        record = ChunkRecord(**fields)
        digest, bits = bytes.fromhex(head["body"]), ChangeBits(*head["bits"])
        encoded = EncodedChunk(record, body, digest, bits)
    return CodedChunk(base or b"", result, encoded)


def hex_digests(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an object for JSON, with bytes in hexadecimal."""
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in fields.items()}


def hand_over(ranks: Ranks, messages: Iterable[bytes]) -> None:
    """Write this rank's messages to an unnamed file, and send them when all are made.

    Raises:
        PatchcError: the error of the lowest rank that failed; then nothing is sent.
        StorageError: the temporary folder is full.
    """
    with storage_errors("the temporary folder", "find"):
        folder, action = gettempdir(), "write a temporary file in"
    with storage_errors(folder, action), TemporaryFile(dir=folder) as spool:

        def spool_all() -> bytes:
            with storage_errors(folder, action):
                for message in messages:
                    spool.write(len(message).to_bytes(_LENGTH_BYTES, "little") + message)
                spool.seek(0)
            return b""

        ranks.gather("coded tensors", spool_all)
        while length := spool.read(_LENGTH_BYTES):
            ranks.send(spool.read(int.from_bytes(length, "little")))
