"""Measures one pair: patchc from file to file, peers from memory to file and back."""

from __future__ import annotations

import filecmp
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from blake3 import blake3
from pairs import Pair
from peers import PACKAGES, Model, Peer, peers, words
from safetensors.torch import load_file, save_file
from stages import Stages

import patchc
from patchc.compiler.steps import Codec

PART_WORDS = 1 << 22
PART_OF_TENSOR = 1 << 20
LONG = 10.0
"""Seconds after which a peer is not run again for a better time."""


@dataclass(frozen=True)
class Row:
    """One way to store one change: bytes of the file, seconds of the fastest run each way.

    ``fault`` says why the figures do not count.
    """

    name: str
    nbytes: int
    encode: float
    decode: float
    fault: str = ""


@dataclass(frozen=True)
class Own:
    """What patchc makes of a pair, with the codec that it chooses and with the plain one.

    ``positions`` and ``values`` are the bits of the entropy, ``framing`` the bytes of the file that
    are not coded changes.
    """

    auto: Row
    rice: Row
    words: int
    changed: int
    positions: int
    values: int
    framing: int


@dataclass(frozen=True)
class Measured:
    """A pair's figures: over all of it, and over the part that slow peers take."""

    pair: Pair
    nbytes: int
    own: Own
    peers: tuple[Row, ...]
    part_nbytes: int
    part: Own
    part_peers: tuple[Row, ...]


def measure(pair: Pair, work: Path, folder: Path, repeats: int) -> Measured:
    """Measure everything on one pair.

    Peers' rows are kept in ``work`` for as long as the pair, our calls of them and their versions
    stay the same; patchc is always measured anew. ``folder`` is for files that come and go.

    Raises:
        SystemExit: patchc is not lossless.
    """
    own = _patchc(pair, folder, repeats)
    whole, part = _Sides(pair), _Sides(_part(pair, folder))
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for peer in peers():
        fits = own.changed <= peer.most
        rows[fits].append(_kept(peer, whole if fits else part, work, folder, repeats))
    return Measured(
        pair=pair,
        nbytes=pair.base.stat().st_size,
        own=own,
        peers=tuple(rows[True]),
        part_nbytes=part.pair.base.stat().st_size,
        part=_patchc(part.pair, folder, 1),
        part_peers=tuple(rows[False]),
    )


class _Sides:
    """Both sides of a pair, read when a peer needs them."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    @cached_property
    def digests(self) -> list[str]:
        sides = (self.pair.base, self.pair.tuned)
        return [blake3(max_threads=2).update_mmap(side).hexdigest() for side in sides]

    @cached_property
    def before(self) -> Model:
        return load_file(self.pair.base)

    @cached_property
    def after(self) -> Model:
        return load_file(self.pair.tuned)


def _patchc(pair: Pair, folder: Path, repeats: int) -> Own:
    auto = _coded(pair, "auto", folder, repeats)
    report = patchc.inspect(folder / "auto.patchc")
    rice = _coded(pair, "rice", folder, repeats)
    for codec in ("auto", "rice"):
        (folder / f"{codec}.patchc").unlink()
    bound = report.entropy
    return Own(
        auto=auto,
        rice=rice,
        words=report.total.words,
        changed=report.total.changed,
        positions=round(bound.positions) if bound else 0,
        values=round(bound.values) if bound else 0,
        framing=report.size - report.total.nbytes,
    )


def _coded(pair: Pair, codec: Codec, folder: Path, repeats: int) -> Row:
    """Write the pair's patch, apply it and revert it, and compare both results byte for byte."""
    patch, applied, back = (folder / name for name in (f"{codec}.patchc", "applied", "back"))
    encode = _best(repeats, patch, lambda: pair.make_patch(patch, codec))
    decode = _best(repeats, applied, lambda: patchc.apply(patch, pair.base, out=applied))
    patchc.revert(patch, applied, out=back)
    for made, wanted in ((applied, pair.tuned), (back, pair.base)):
        if not filecmp.cmp(made, wanted, shallow=False):
            sys.exit(f"{pair.name}: patchc {codec} is not lossless: no figure is worth printing")
        made.unlink()
    return Row(f"patchc, {codec}", patch.stat().st_size, encode, decode)


def _kept(peer: Peer, sides: _Sides, work: Path, folder: Path, repeats: int) -> Row:
    """A peer's row, measured anew only where what it depends on has changed."""
    program = Path(__file__).with_name("peers.py").read_bytes()
    inputs = {
        "pair": sides.digests,
        "program": blake3(program).hexdigest(),
        "packages": {package: version(package) for package in PACKAGES},
    }

    def make(stage: Path) -> None:
        row = _peer(peer, sides.before, sides.after, folder, repeats)
        (stage / "row.json").write_text(json.dumps(asdict(row)))

    name = "/".join(re.sub(r"\W+", "-", part) for part in (sides.pair.name, peer.name))
    stage = Stages(work / "peers").run(name, inputs, make)
    return Row(**json.loads((stage / "row.json").read_text()))


def _peer(peer: Peer, before: Model, after: Model, folder: Path, repeats: int) -> Row:
    path = folder / "peer"
    fault, encode, decode = "", 0.0, 0.0
    try:
        encode = _best(repeats, path, lambda: peer.encode(before, after, path), LONG)
        decode = float("inf")
        for _ in range(repeats if encode < LONG else 1):
            base = {name: value.clone() for name, value in before.items()}
            start = time.perf_counter()
            made = peer.decode(base, path)
            decode = min(decode, time.perf_counter() - start)
        if any(bool((words(made[k]) != words(after[k])).any()) for k in after):
            fault = "not lossless"
    except Exception as error:
        fault = f"fails: {type(error).__name__}"
    nbytes = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return Row(peer.name, nbytes, encode, decode, fault)


def _best(
    repeats: int, out: Path, work: Callable[[], object], enough: float = float("inf")
) -> float:
    """Seconds of the fastest run, or of the first if it took more than is ``enough``.

    ``out`` is removed before each one.
    """
    seconds = float("inf")
    for _ in range(repeats):
        out.unlink(missing_ok=True)
        start = time.perf_counter()
        work()
        seconds = min(seconds, time.perf_counter() - start)
        if seconds > enough:
            break
    return seconds


def _part(pair: Pair, folder: Path) -> Pair:
    """The first words of the first tensors, as a pair of its own."""
    paths = [folder / "part-base.safetensors", folder / "part-tuned.safetensors"]
    for path, side in zip(paths, (pair.base, pair.tuned), strict=True):
        model, cut, room = load_file(side), {}, PART_WORDS
        for name in sorted(model):
            count = min(model[name].numel(), PART_OF_TENSOR, room)
            if count:
                cut[name] = model[name].view(-1)[:count].clone()
            room -= count
        save_file(cut, path)
    return Pair(f"{pair.name}, part", pair.what, *paths)
