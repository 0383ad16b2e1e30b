"""The record beside derived weights: from which base they were derived, and in which direction.

It is read as a stranger's. A component that another tool made has none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchc.checkpoint import Checkpoint
from patchc.compiler.pipeline import Check, accept
from patchc.errors import CheckpointError, MismatchError, UsageError
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.patching.digest import digest_checkpoint, digest_of, read_digests
from patchc.progress import Progress
from patchc.recipe import checks
from patchc.regular_file import read_regular
from patchc.runtime.memory import usable_cores
from patchc.runtime.runtime import Runtime
from patchc.strict_json import parse_json
from patchc.system_errors import reason

RECORD = "derive.json"
"""The file beside derived weights that says how they were derived."""

_KIND = "derive"
_DIGEST = re.compile("[0-9a-f]{64}")
_CHUNK_WORDS = 1 << DEFAULT_CHUNK_BITS
_SAMPLED_WORDS = 4096
_THREADS = 4
_MOST_BYTES = 4 << 20
_MOST_NAME = 255
_SERVES = {"se": "se", "margin": "se", "osm": "osm"}
"""For each direction, the component that it serves as."""

_CALLED = {"se": "safety enhancement (SE)", "osm": "over-safety mitigation (OSM)"}


@dataclass(frozen=True)
class ComponentRecord:
    """What the record of a component says that a build has to know.

    Attributes:
        folder: where it lies.
        direction: "se", "osm" or "margin".
        base: the name of the base's folder.
        base_digest: the base's digest, as in patches with chunks of the default size, in hex.
        base_sample: its :func:`sample_digest`.
    """

    folder: Path
    direction: str
    base: str
    base_digest: str
    base_sample: str

    def check_use(self, name: str) -> None:
        """Refuse SafePatching's component ``name`` to be of the other direction.

        Raises:
            MismatchError: saying what it is.
        """
        serves = _SERVES[self.direction]
        if serves != name:
            raise MismatchError(
                f"{self.folder}: this is a component for {_CALLED[serves]}, and it is given as "
                f"--{name}; swap --se and --osm, or name the component for {_CALLED[name]}"
            )


@dataclass(frozen=True)
class ComponentRecords:
    """The records of a build's components.

    Attributes:
        base: the build's base.
        found: those that there are.
        notes: what cannot be checked, since there is no record.
    """

    base: Path
    found: tuple[ComponentRecord, ...]
    notes: tuple[str, ...]

    def check_digest(self, digest: str) -> None:
        """Refuse components that were derived from another base than the one of this digest.

        Raises:
            MismatchError: naming the component, its base, and both digests.
        """
        for record in self.found:
            if record.base_digest != digest:
                raise _of_another_base(
                    record, self.base, f", digest {record.base_digest}, and this one is {digest}"
                )

    def checks_of(self, base: Checkpoint, chunk_words: int, runtime: Runtime) -> Check:
        """Return the check of the base's whole digest that a build ends with.

        The build has computed that digest then. With another grid than that of the records it has
        computed another digest, so that the base is read, and checked, at once.

        Raises:
            MismatchError: as :meth:`check_digest`.
        """
        if not self.found:
            return accept
        if chunk_words == _CHUNK_WORDS:
            return lambda patch: self.check_digest(patch.base_digest.hex())
        self.check_digest(digest_checkpoint(base, runtime).hex())
        return accept


def read_records(
    base: Checkpoint, given: Iterable[tuple[str, str | os.PathLike[str]]]
) -> ComponentRecords:
    """Read the records of components, and refuse those that do not fit, as far as that is cheap.

    Args:
        base: the build's base, of which the first words of each tensor are read.
        given: what each is given as ("se" or "osm", or anything else for a merge), and its path.

    Raises:
        MismatchError: a component is of the other direction, or was derived from another base.
        CheckpointError: a record is damaged, or the base cannot be read.
    """
    found, without, sample = [], [], ""
    for name, path in given:
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        if not os.path.lexists(folder / RECORD):
            without += [str(path)] if name in _CALLED else []
            continue
        record = _read(folder)
        if name in _CALLED:
            record.check_use(name)
        sample = sample or sample_digest(base)
        if record.base_sample != sample:
            raise _of_another_base(record, base.path)
        found.append(record)
    notes = (_cannot_check(without, base),) if without else ()
    return ComponentRecords(base.path, tuple(found), notes)


def identify_base(base: Checkpoint, progress: Progress) -> dict[str, str]:
    """Make what a record says about the base, which is read once, in little memory.

    Raises:
        CheckpointError: the base cannot be read.
    """
    with Runtime(min(_THREADS, usable_cores()), progress=progress) as runtime:
        chunks = read_digests(base, _CHUNK_WORDS, "identify base", runtime)
    return {
        "base": os.fsencode(base.path.resolve().name).decode(errors="replace") or "/",
        "base_digest": digest_of(base, chunks).hex(),
        "base_sample": sample_digest(base),
    }


def sample_digest(base: Checkpoint) -> str:
    """A digest that tells models apart without reading all of them, in hexadecimal.

    It covers names, dtypes and shapes of all tensors and the first 4096 words of each. Two models
    that differ in training differ there.

    Raises:
        CheckpointError: the base cannot be read.
    """
    pairs = []
    for name, tensor in base.tensors.items():
        words = np.empty(min(tensor.words, _SAMPLED_WORDS), tensor.dtype.word)
        sample = chunk_digest(base.read_words(tensor, 0, words))
        pairs.append((name, tensor_digest(tensor.dtype.name, tensor.shape, [sample])))
    return model_digest(pairs).hex()


def _read(folder: Path) -> ComponentRecord:
    path = folder / RECORD
    try:
        return _check(folder, parse_json(read_regular(path, _MOST_BYTES)))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
    except (ValueError, UsageError) as error:
        raise CheckpointError(
            f"{path}: not the record of a derivation ({error}); derive the component again, or "
            "remove this file to take the weights without a record"
        ) from error


def _check(folder: Path, content: Any) -> ComponentRecord:
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"its kind is not {_KIND!r}")
    wanted = ("direction", "base", "base_digest", "base_sample")
    missing = [name for name in wanted if name not in content]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    record = ComponentRecord(folder, *(checks.text(name, content[name]) for name in wanted))
    checks.choice("direction", record.direction, tuple(_SERVES))
    if len(record.base) > _MOST_NAME:
        raise ValueError(f"base has more than {_MOST_NAME} characters")
    for name in ("base_digest", "base_sample"):
        if not _DIGEST.fullmatch(getattr(record, name)):
            raise ValueError(f"{name} is no digest")
    return record


def _of_another_base(record: ComponentRecord, base: Path, digests: str = "") -> MismatchError:
    return MismatchError(
        f"{record.folder}: this component was derived from another base than {base} (from "
        f"{record.base!r}{digests}); name that base, or derive the component again"
    )


def _cannot_check(without: list[str], base: Checkpoint) -> str:
    return (
        f"{' and '.join(without)}: no {RECORD} there, so it is not checked that this was derived "
        f"from {base.path}, and in which direction"
    )
