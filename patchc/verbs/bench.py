"""Measures many models and patches of one base on the same requests."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blake3 import blake3

from patchc.errors import import_errors
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import open_judge
from patchc.evaluation.measure import Setup
from patchc.evaluation.requests import read_request_sets
from patchc.evaluation.results import evaluation_digest
from patchc.evaluation.trials import Trial
from patchc.formats import open_patch
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.signing.trust import JUST_MADE
from patchc.verbs.apply import apply
from patchc.verbs.evaluate import read_reference


@dataclass(frozen=True)
class Bench(Setup):
    """A setup that measures models and patches; ``digest`` covers all of it, in hexadecimal."""

    digest: str

    def measure(self, folder: Path, name: str, progress: Progress = ignore_progress) -> Trial:
        """Measure a model without a patch.

        Raises:
            EvaluateError, CheckpointError, UnsupportedInputError: as :func:`patchc.evaluate`.
        """
        from patchc.evaluation.model import evaluate_model

        start = time.perf_counter()
        measured = evaluate_model(folder, name, self, progress=progress)
        return Trial.of(measured, recipe=None, seconds=time.perf_counter() - start)

    def measure_patch(self, base: Path, patch: Path, progress: Progress = ignore_progress) -> Trial:
        """Measure a base with a patch applied, in a temporary folder.

        Raises:
            EvaluateError, CheckpointError, UnsupportedInputError: as :func:`patchc.evaluate`.
            and what :func:`patchc.apply` raises.
        """
        start = time.perf_counter()
        with TemporaryDirectory(prefix="patchc-bench-") as scratch:
            model = Path(scratch) / "patched"
            report = apply(patch, base, out=model, trust=JUST_MADE)
            trial = self.measure(model, patch.name, progress)
        with open_patch(patch) as opened:
            metadata = opened.metadata
        selected = metadata.get("statistics")
        return replace(
            trial,
            recipe=metadata.get("recipe"),
            patch_bytes=patch.stat().st_size,
            changed_words=report.changed_words,
            selected=selected if isinstance(selected, Mapping) else None,
            seconds=time.perf_counter() - start,
        )


def open_bench(
    base: PathLike,
    *,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    options: EvaluateOptions | None = None,
) -> Bench:
    """Read the requests and encode them with the base's tokenizer.

    Raises:
        EvaluateError: bad requests, or the base has no chat template.
        UsageError: there is no such judge or device.
        MissingExtraError: torch or transformers is not installed.
    """
    options = options or EvaluateOptions()
    requests = read_request_sets(harmful, harmless, utility, options.limit)
    text = read_reference(reference) if reference else None
    with import_errors("evaluation", "derive"):
        from patchc.evaluation.prompts import encode_prompts
    prompts = encode_prompts(Path(base), requests, options)
    references = [request.response for request in requests.harmless]
    content: list[Any] = [evaluation_digest(requests, options), prompts.tokens, text]
    content += [references] if any(references) else []
    digest = blake3(json.dumps(content).encode()).hexdigest(length=16)
    return Bench(requests, prompts, open_judge(options), text, options, digest)
