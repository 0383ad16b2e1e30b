"""Loads a stranger's model with transformers: never its code, never a pickle, never a question."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, dynamic_module_utils
from transformers.quantizers import AutoHfQuantizer

from patchc.checkpoint import Checkpoint, refuse_adapter_beside, refuse_unstated
from patchc.errors import PatchcError, UnsupportedInputError
from patchc.layered.stated_sizes import check_sizes
from patchc.regular_file import read_regular
from patchc.system_errors import reason

_CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_MOST_BYTES = 1 << 24
_SHOWN = 300


def load_from(kind: Any, folder: Path, what: str, **settings: Any) -> Any:
    """Load what one of transformers' classes finds in a folder.

    The network is not asked, nor is standard input. Code in the folder is not run, whatever its
    files say; where transformers has a class of its own, it takes that.

    Args:
        kind: the class.
        folder: a model's.
        what: what is loaded, for messages: "the tokenizer".
        settings: other arguments of ``from_pretrained``.

    Raises:
        UnsupportedInputError: transformers cannot load it.
    """
    with _errors_told(folder, what):
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )


def load_config(folder: Path, checkpoint: Checkpoint | None = None) -> Any:
    """Load the config of a model's folder, which chooses no implementation of attention or experts.

    A config can name one that transformers would fetch from a hub and run.

    Args:
        folder: the model's.
        checkpoint: its tensors, against which the sizes that the config states are checked.

    Raises:
        UnsupportedInputError: it cannot be read, its sizes are absurd, or transformers does not
            know the architecture.
    """
    _check_config(folder, checkpoint)
    config = load_from(AutoConfig, folder, "the config")
    config._attn_implementation = None
    config._experts_implementation = None
    return config


def load_tokenizer_files(folder: Path, config: Any) -> Any:
    """Load the tokenizer of a model's folder; the config is that of :func:`load_config`.

    Raises:
        UnsupportedInputError: transformers cannot load it.
    """
    tokenizer = load_from(AutoTokenizer, folder, "the tokenizer", config=config)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UnsupportedInputError(
            f"{folder / _TOKENIZER_CONFIG}: {type(tokenizer).__name__} is no tokenizer of one "
            "text; copy the tokenizer's files from the model that the weights are of"
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        stated = f"{tokenizer.model_max_length!r:.80}"
        raise UnsupportedInputError(
            f"{folder / _TOKENIZER_CONFIG}: model_max_length is {stated}; it must be a number"
        )
    with _errors_told(folder, "the tokenizer"):
        tokenizer.encode("a")  # some faults of its files show only now
    return tokenizer


def load_model(kind: Any, checkpoint: Checkpoint, what: str, **settings: Any) -> Any:
    """Load a checkpoint's folder with one of transformers' auto classes, from safetensors alone.

    Raises:
        UnsupportedInputError: transformers cannot load it as ``what``, or would take codes of
            quantised weights for weights.
    """
    folder = checkpoint.path
    refuse_adapter_beside(folder)
    config = load_config(folder, checkpoint)
    if not _is_decoded(config, folder):
        refuse_unstated(checkpoint)
    return load_from(kind, folder, what, config=config, use_safetensors=True, **settings)


def build_model(kind: Any, config: Any, folder: Path, what: str, **settings: Any) -> Any:
    """Build the architecture of a config without weights.

    Raises:
        ValueError: transformers has no such architecture, or not with these settings.
        UnsupportedInputError: it fails otherwise.
    """
    with _errors_told(folder, what, passed=ValueError):
        return kind.from_config(config, trust_remote_code=False, **settings)


def count_words(folder: Path, config: Any) -> int:
    """Return the tokens that a language model knows; the config is that of :func:`load_config`.

    Raises:
        UnsupportedInputError: the config does not state it, or for several models.
    """
    with _errors_told(folder, "it as a causal language model"):
        return int(config.get_text_config().vocab_size)


def check_tokens(folder: Path, texts: Iterable[Sequence[int]], words: int) -> None:
    """Check that texts hold no token beyond a model's embedding.

    Raises:
        UnsupportedInputError: one does; the tokenizer is that of another model.
    """
    most = max((token for tokens in texts for token in tokens), default=0)
    if most >= words:
        raise UnsupportedInputError(
            f"{folder}: the tokenizer gives the token {most}, and the model knows {words:,}, the "
            f"last one {words - 1}; copy the tokenizer's files from the model that the weights are "
            "of"
        )


def _is_decoded(config: Any, folder: Path) -> bool:
    """Whether transformers decodes quantised weights; it ignores a method that it does not know."""
    stated = getattr(config, "quantization_config", None)
    if not isinstance(stated, dict):
        return stated is not None
    with _errors_told(folder, "the config"):
        return bool(stated) and AutoHfQuantizer.supports_quant_method(stated)


def _check_config(folder: Path, checkpoint: Checkpoint | None) -> None:
    file = folder / _CONFIG
    try:
        stated = json.loads(read_regular(file, _MOST_BYTES))
    except OSError as error:
        raise UnsupportedInputError(f"{file}: cannot read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UnsupportedInputError(f"{file}: not readable JSON ({error!s:.{_SHOWN}})") from error
    if not isinstance(stated, dict):
        raise UnsupportedInputError(f"{file}: not a JSON object but {type(stated).__name__}")
    check_sizes(file, stated, checkpoint)


@contextmanager
def _errors_told(folder: Path, what: str, passed: type[Exception] = PatchcError) -> Iterator[None]:
    """Turn whatever transformers and its libraries raise about a folder into one error.

    Some classes load others, and do not say that no code is trusted. Transformers would ask.
    """
    seconds_to_answer = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    except (PatchcError, passed, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        raise UnsupportedInputError(
            f"{folder}: transformers cannot load {what} ({_reason(folder, error)})"
        ) from error
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds_to_answer


def _reason(folder: Path, error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        named = [name for name in (_CONFIG, _TOKENIZER_CONFIG) if _names_code(folder / name)]
        return (
            f"auto_map in {' and '.join(named) or _CONFIG} names code of the folder, and patchc "
            "runs no code of a model; name a model of an architecture that transformers has itself"
        )
    if "ignore_mismatched_sizes" in str(error):
        return f"{_CONFIG} states other shapes than the tensors have"
    text = " ".join(str(error).split()) or "it says no more"
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return shown if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {shown}"


def _names_code(file: Path) -> bool:
    try:
        content = json.loads(read_regular(file, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "auto_map" in content
