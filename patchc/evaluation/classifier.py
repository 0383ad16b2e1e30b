"""The judge "hf": a sequence classifier that recognises refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.checkpoint import open_checkpoint
from patchc.errors import (
    CheckpointError,
    MissingInputError,
    UnsupportedInputError,
    UsageError,
    import_errors,
)
from patchc.evaluation.verdicts import Judge
from patchc.hub_models import local_model
from patchc.paths import check_named

if TYPE_CHECKING:
    import torch

_BATCH = 32
_LONGEST = 512
_STEMS = ("refus", "reject")


def open_classifier(spec: str, device: str | torch.device) -> Judge:
    """Open a judge from ``MODEL`` or ``MODEL=LABEL``: a classifier's folder or hub id, and a label.

    Its weights are safetensors; code in the folder is not run. The classifier reads the reply
    alone, its first 512 tokens at most. A reply is a refusal if
    LABEL scores highest; without LABEL, if the one label whose name holds "refus" or "reject" does.

    Raises:
        UsageError: it cannot be loaded whole, has only one label, or has no such label.
        MissingExtraError: torch or transformers is not installed.
    """
    with import_errors("judge hf", "derive"):
        import torch
        from transformers import AutoModelForSequenceClassification

        from patchc.derivation.session import choose_device, quiet_transformers
        from patchc.evaluation.generation import load_whole
        from patchc.layered.from_folder import load_config, load_tokenizer_files
    path, equals, label = spec.rpartition("=")
    if not equals or Path(spec).is_dir():
        path, label = spec, ""
    check_named(path, f"judge hf:{spec}")
    try:
        folder = Path(local_model(path))
    except CheckpointError as error:
        raise MissingInputError(f"judge hf:{spec}: {error}", path) from error
    if not folder.is_dir():
        message = f"judge hf:{spec}: {folder} is no folder; name the classifier's, or its hub id"
        raise MissingInputError(message, str(folder))
    try:
        with quiet_transformers(), open_checkpoint(folder) as checkpoint:
            tokenizer = load_tokenizer_files(folder, load_config(folder, checkpoint))
            kind = AutoModelForSequenceClassification
            model = load_whole(kind, checkpoint, "a sequence classifier")
    except (CheckpointError, UnsupportedInputError) as error:
        raise UsageError(f"judge hf:{spec}: cannot load the classifier ({error})") from error
    labels = {number: str(name) for number, name in model.config.id2label.items()}
    if len(labels) < 2:
        raise UsageError(
            f"judge hf:{spec}: the classifier has one label, so every reply would get it; "
            "take one that tells refusals from other replies"
        )
    if set(labels) != set(range(len(labels))):
        raise UsageError(
            f"judge hf:{spec}: id2label in its config.json does not number its {len(labels)} "
            "labels from 0 on; correct it"
        )
    refusing = [
        number
        for number, name in labels.items()
        if (name == label if label else any(stem in name.lower() for stem in _STEMS))
    ]
    if len(refusing) != 1:
        raise UsageError(
            f"judge hf:{spec}: cannot tell which label means refused; write hf:MODEL=LABEL with "
            f"one of {', '.join(labels.values())}"
        )
    model = model.to(choose_device(device)).eval()
    stated = tokenizer.model_max_length
    longest = min(_LONGEST, stated) if isinstance(stated, int) and stated > 0 else _LONGEST

    def judge(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
        verdicts: list[bool] = []
        for first in range(0, len(replies), _BATCH):
            encoded = tokenizer(
                list(replies[first : first + _BATCH]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(model.device)
            with torch.inference_mode():
                scores = model(**encoded).logits
            verdicts += (scores.argmax(dim=-1) == refusing[0]).tolist()
        return verdicts

    return judge
