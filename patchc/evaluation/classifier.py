"""The judge "hf": a sequence classifier that knows refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchc.errors import MissingExtraError, UnsupportedInputError, UsageError
from patchc.evaluation.evaluate_options import Device
from patchc.evaluation.loading import load_whole
from patchc.evaluation.verdicts import Judge

_BATCH = 32
_LONGEST = 512


def open_classifier(spec: str, device: Device) -> Judge:
    """A judge from ``PATH`` or ``PATH=LABEL``, a classifier's local folder.

    The classifier reads the reply alone, its first 512 tokens at most. A reply is a refusal where
    LABEL scores highest; without LABEL, the one label whose name holds "refus" or "reject".

    Raises:
        UsageError: it cannot be loaded whole, has one label alone, or has no such label.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from patchc.derivation.session import choose_device, quiet_transformers
    except ImportError as error:
        raise MissingExtraError(
            f"judge hf needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    path, equals, label = spec.rpartition("=")
    if not equals or Path(spec).is_dir():
        path, label = spec, ""
    if not Path(path).is_dir():
        raise UsageError(f"judge hf:{spec}: {path} is no folder; download the classifier first")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            model = load_whole(
                AutoModelForSequenceClassification, Path(path), "a sequence classifier"
            )
    except (OSError, ValueError, KeyError, UnsupportedInputError) as error:
        raise UsageError(f"judge hf:{spec}: cannot load the classifier ({error})") from error
    if len(model.config.id2label) < 2:
        raise UsageError(
            f"judge hf:{spec}: the classifier has one label, so that nothing could be another; "
            "take one that tells refusals from other replies"
        )
    model = model.to(choose_device(device)).eval()
    wanted = _label(spec, label, model.config.id2label)
    longest = min(_LONGEST, tokenizer.model_max_length)

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
            verdicts += (scores.argmax(dim=-1) == wanted).tolist()
        return verdicts

    return judge


def _label(spec: str, label: str, labels: dict[int, str]) -> int:
    if label:
        found = [number for number, name in labels.items() if name == label]
    else:
        found = [
            number
            for number, name in labels.items()
            if "refus" in name.lower() or "reject" in name.lower()
        ]
    if len(found) != 1:
        raise UsageError(
            f"judge hf:{spec}: cannot tell which label means refused; write hf:PATH=LABEL with one "
            f"of {', '.join(labels.values())}"
        )
    return found[0]
