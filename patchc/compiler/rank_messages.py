"""A rank's part of a patch on its way to rank 0: coded chunks, and what was found of each tensor.

A message is a line of JSON and the chunk's body. Digests are in hexadecimal, and JSON keeps floats
as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any, BinaryIO

from patchc.files import storage_errors
from patchc.formats import ChunkRecord, EncodedChunk
from patchc.formats.change_bits import ChangeBits
from patchc.hashing import short
from patchc.runtime.ranks import Ranks

TensorReport = Mapping[str, Any]
"""What is to be told of a tensor when all its chunks were coded, as JSON values."""

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class CodedChunk:
    """A chunk's full digests on both sides, and its coding where it changes.

    With additive values there is no ``result_digest``.
    """

    base_digest: bytes
    result_digest: bytes | None
    encoded: EncodedChunk | None


def pack_chunk(coded: CodedChunk) -> bytes:
    """A coded chunk as a message."""
    head: dict[str, Any] = {"base": coded.base_digest.hex()}
    if coded.result_digest is not None:
        head["result"] = coded.result_digest.hex()
    if coded.encoded is None:
        return json.dumps(head).encode() + b"\n"
    record, bits = coded.encoded.record, coded.encoded.bits
    head["record"] = [record.number, record.codec, record.masks, record.entries]
    head["short"] = [record.base_digest.hex(), record.result_digest.hex()]
    head["body"] = coded.encoded.digest.hex()
    head["bits"] = [bits.positions, bits.values]
    return json.dumps(head).encode() + b"\n" + coded.encoded.body


def unpack_chunk(message: bytes) -> CodedChunk:
    """The chunk that :func:`pack_chunk` made a message of."""
    line, _, body = message.partition(b"\n")
    head = json.loads(line)
    digests = [bytes.fromhex(head[side]) if side in head else None for side in ("base", "result")]
    if "record" not in head:
        return CodedChunk(digests[0] or b"", digests[1], None)
    number, codec, masks, entries = head["record"]
    before, after = map(bytes.fromhex, head["short"])
    digest = bytes.fromhex(head["body"])
    record = ChunkRecord(
        row=0,
        number=number,
        codec=codec,
        masks=masks,
        entries=entries,
        offset=0,
        length=len(body),
        body_digest=short(digest),
        base_digest=before,
        result_digest=after,
    )
    encoded = EncodedChunk(record, body, digest, ChangeBits(*head["bits"]))
    return CodedChunk(digests[0] or b"", digests[1], encoded)


def pack_report(finding: TensorReport) -> bytes:
    """A finding as a message."""
    return json.dumps(finding).encode()


def unpack_report(message: bytes) -> TensorReport:
    """The finding that :func:`pack_report` made a message of."""
    finding: TensorReport = json.loads(message)
    return finding


def hand_over(ranks: Ranks, messages: Iterable[bytes]) -> None:
    """Make this rank's messages, keep them in an unnamed file, and send them when all are made.

    Raises:
        PatchcError: of the lowest rank whose part failed; then nothing is sent.
        StorageError: the temporary folder is full.
    """
    folder = Path(gettempdir())
    with storage_errors(folder, "write a temporary file in"), TemporaryFile() as spool:
        ranks.gather("parts", lambda: _keep(spool, messages))
        spool.seek(0)
        for message in _kept(spool):
            ranks.send(message)


def _keep(spool: BinaryIO, messages: Iterable[bytes]) -> bytes:
    for message in messages:
        spool.write(len(message).to_bytes(_LENGTH_BYTES, "little") + message)
    return b""


def _kept(spool: BinaryIO) -> Iterator[bytes]:
    while length := spool.read(_LENGTH_BYTES):
        yield spool.read(int.from_bytes(length, "little"))
