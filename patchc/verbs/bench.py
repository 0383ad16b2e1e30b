"""Measures models and patches of one base, again and again, on the same requests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from patchc.errors import MissingExtraError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import open_judge
from patchc.evaluation.requests import RequestSets, read_request_sets
from patchc.evaluation.results import evaluation_digest
from patchc.evaluation.trials import Trial
from patchc.evaluation.verdicts import CheckedJudge
from patchc.formats import open_patch
from patchc.progress import Progress, ignore_progress
from patchc.verbs.apply import apply
from patchc.verbs.evaluate import read_reference

if TYPE_CHECKING:
    from patchc.evaluation.prompts import Prompts

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Bench:
    """What measuring many models of one tokenizer shares.

    Attributes:
        requests: the requests of each set.
        prompts: the same as tokens.
        judge: gives a verdict on each reply.
        reference: a text to take the perplexity of, or None.
        options: how to ask and judge.
        digest: of requests, their tokens, options, text and reference answers, in hexadecimal.
    """

    requests: RequestSets
    prompts: Prompts
    judge: CheckedJudge
    reference: str | None
    options: EvaluateOptions
    digest: str

    def measure(self, folder: Path, name: str, progress: Progress = ignore_progress) -> Trial:
        """Measure a model as it is.

        Raises:
            EvaluateError, CheckpointError, UnsupportedInputError: as :func:`patchc.evaluate`.
        """
        from patchc.evaluation.model import evaluate_model

        start = time.perf_counter()
        measured = evaluate_model(
            folder,
            self.requests,
            self.options,
            name=name,
            prompts=self.prompts,
            judge=self.judge,
            reference=self.reference,
            progress=progress,
        )
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
            report = apply(patch, base, out=model)
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
    requests = read_request_sets(
        Path(harmful), Path(harmless), Path(utility) if utility else None, options.limit
    )
    text = read_reference(Path(reference)) if reference else None
    try:
        from patchc.evaluation.prompts import encode_prompts
    except ImportError as error:
        raise MissingExtraError(
            f"evaluation needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    prompts = encode_prompts(Path(base), requests, options)
    references = [request.response for request in requests.harmless]
    content: list[Any] = [evaluation_digest(requests, options), prompts.tokens, text]
    content += [references] if any(references) else []
    digest = blake3(json.dumps(content).encode()).hexdigest(length=16)
    return Bench(requests, prompts, open_judge(options), text, options, digest)
