"""Measures one pair: patchc from file to file, peers from memory to file and back."""

from __future__ import annotations

import filecmp
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pairs import Pair
from peers import Model, Peer, peers, words
from safetensors.torch import load_file, save_file

import patchc

PART_WORDS = 1 << 21
PART_OF_TENSOR = 1 << 17


@dataclass(frozen=True)
class Row:
    """One way to store one change. Rates are in bytes of the base a second, the best of repeats.

    ``fault`` says why there are no figures that count; ``bits`` are per changed entry.
    """

    name: str
    nbytes: int
    bits: float
    encode: float
    decode: float
    fault: str = ""


@dataclass(frozen=True)
class Measured:
    """A pair's figures: ``rows`` over all of it, ``part_rows`` over the part that slow peers take.

    ``entropy`` and ``framing`` are in bits per changed entry.
    """

    pair: Pair
    words: int
    changed: int
    entropy: float
    framing: float
    rows: tuple[Row, ...]
    part_words: int
    part_rows: tuple[Row, ...]


def measure(pair: Pair, folder: Path, repeats: int) -> Measured:
    """Measure everything on one pair; ``folder`` is for files that come and go.

    Raises:
        SystemExit: patchc is not lossless.
    """
    report = patchc.diff(pair.base, pair.tuned, out=folder / "count.patchc")
    (folder / "count.patchc").unlink()
    before, after = load_file(pair.base), load_file(pair.tuned)
    rows = [_patchc(pair, folder, repeats)]
    rows += [_peer(one, before, after, folder, repeats) for one in peers() if not one.slow]
    part, part_words = _part(pair, before, after, folder)
    before, after = load_file(part.base), load_file(part.tuned)
    part_rows = [_patchc(part, folder, 1)]
    part_rows += [_peer(one, before, after, folder, 1) for one in peers() if one.slow]
    changed = max(report.entries, 1)
    return Measured(
        pair=pair,
        words=report.words,
        changed=report.entries,
        entropy=report.entropy.total / changed if report.entropy else 0.0,
        framing=8 * (report.size - report.body_bytes) / changed,
        rows=tuple(rows),
        part_words=part_words,
        part_rows=tuple(part_rows),
    )


def _patchc(pair: Pair, folder: Path, repeats: int) -> Row:
    patch, applied, back = (folder / name for name in ("p.patchc", "applied", "back"))
    encode = _best(repeats, patch, lambda: patchc.diff(pair.base, pair.tuned, out=patch))
    if pair.make_patch:
        patch.unlink()
        pair.make_patch(patch)
    decode = _best(repeats, applied, lambda: patchc.apply(patch, pair.base, out=applied))
    patchc.revert(patch, applied, out=back)
    same = filecmp.cmp(applied, pair.tuned, shallow=False)
    if not same or not filecmp.cmp(back, pair.base, shallow=False):
        sys.exit(f"{pair.name}: patchc is not lossless: no figure is worth printing")
    nbytes = patch.stat().st_size
    changed = patchc.inspect(patch).total.changed
    for path in (patch, applied, back):
        path.unlink()
    size = pair.base.stat().st_size
    return Row("patchc", nbytes, 8 * nbytes / max(changed, 1), size / encode, size / decode)


def _peer(peer: Peer, before: Model, after: Model, folder: Path, repeats: int) -> Row:
    path = folder / "peer"
    size = sum(value.nbytes for value in before.values())
    changed = sum(int((words(before[k]) != words(after[k])).sum()) for k in before)
    fault, encode, decode = "", float("inf"), float("inf")
    try:
        encode = _best(repeats, path, lambda: peer.encode(before, after, path))
        for _ in range(repeats):
            base = {name: value.clone() for name, value in before.items()}
            start = time.perf_counter()
            made = peer.decode(base, path)
            decode = min(decode, time.perf_counter() - start)
        if any(bool((words(made[k]) != words(after[k])).any()) for k in after):
            fault = "not lossless"
    except Exception as error:
        fault = f"fails: {type(error).__name__}"
    nbytes = path.stat().st_size if path.exists() else 0
    print(f"    {peer.name}: {8 * nbytes / max(changed, 1):.2f} {fault}", flush=True)
    return Row(peer.name, nbytes, 8 * nbytes / max(changed, 1), size / encode, size / decode, fault)


def _best(repeats: int, out: Path, work: Callable[[], object]) -> float:
    """Seconds of the fastest run; ``out`` is removed before each one."""
    seconds = float("inf")
    for _ in range(repeats):
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
        start = time.perf_counter()
        work()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds


def _part(pair: Pair, before: Model, after: Model, folder: Path) -> tuple[Pair, int]:
    """The first words of each tensor, as a pair of its own."""
    cuts: tuple[Model, Model] = ({}, {})
    total = 0
    for name in sorted(before):
        count = min(before[name].numel(), PART_OF_TENSOR, PART_WORDS - total)
        if count:
            for cut, model in zip(cuts, (before, after), strict=True):
                cut[name] = model[name].view(-1)[:count].clone()
        total += count
    paths = [folder / "part-base.safetensors", folder / "part-tuned.safetensors"]
    for cut, path in zip(cuts, paths, strict=True):
        save_file(cut, path)
    return Pair(pair.name, pair.what, *paths), total
