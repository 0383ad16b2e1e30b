"""Models as transformers loads them, refused where a weight would be made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchc.errors import UnsupportedInputError

_SHOWN = 3


def load_whole(kind: Any, folder: Path, what: str, **settings: Any) -> Any:
    """Load a folder with one of transformers' auto classes; every weight comes from its files.

    transformers fills a weight that the files lack, or hold in another shape, at random. A weight
    that the model ties to another one may be left out.

    Raises:
        UnsupportedInputError: transformers cannot load it as ``what``, or would make up a weight.
    """
    try:
        model, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **settings
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UnsupportedInputError(
            f"{folder}: transformers cannot load it as {what} ({error})"
        ) from error
    made_up = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if made_up:
        more = f" and {len(made_up) - _SHOWN} more" if len(made_up) > _SHOWN else ""
        raise UnsupportedInputError(
            f"{folder}: as {what} it lacks the weights {', '.join(made_up[:_SHOWN])}{more}, and "
            "transformers would fill them at random; complete the checkpoint"
        )
    return model
