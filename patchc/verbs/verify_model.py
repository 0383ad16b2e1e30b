"""Check a model's files against an OpenSSF model-signing bundle."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchc.errors import SignatureError
from patchc.hub_models import takes_models
from patchc.model_bundle.bundle_file import ModelBundle, read_bundle
from patchc.model_bundle.curve_keys import CurveKey, load_trusted_curves
from patchc.model_bundle.file_digests import digest_files
from patchc.model_bundle.model_files import WHOLE, list_files
from patchc.paths import PathLike, listed
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime

_MOST_NAMED = 3


@dataclass(frozen=True)
class VerifyModelReport:
    """A model whose every file is as it was signed.

    Attributes:
        model: the model.
        signature: the bundle.
        signed_as: the name that the model had when it was signed.
        digest: SHA-256 over the digests of its files, which stands for the model, in hexadecimal.
        key: the file of the trusted key that signed.
        key_id: the SHA-256 of the key's PEM text, in hexadecimal.
        files: the files that are signed.
        left_out: entries of the folder that are not, and that nothing vouches for: git's own, and
            the bundle itself.
    """

    model: Path
    signature: Path
    signed_as: str
    digest: str
    key: Path
    key_id: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]


@takes_models("model")
def verify_model(
    model: PathLike,
    *,
    signature: PathLike,
    trusted: PathLike | Sequence[PathLike],
    follow_links: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> VerifyModelReport:
    """Check that a model's files are those that a trusted key has signed, all of them and no more.

    It takes bundles of :func:`sign_model` and of ``model_signing sign key``. Files of git at the
    top of the folder, and the bundle itself, may be there unsigned, and nothing else, whatever the
    bundle says. It needs ``patchc[oms]``, and no network.

    Args:
        model: a folder, or a file.
        signature: the bundle.
        trusted: public keys (PEM files) of curve P-256, P-384 or P-521, or folders of them.
        follow_links: check what links to files lead to, as in a hub's cache; otherwise a link is
            refused.
        threads: files that are read at once; None means one per core.
        progress: called with the bytes done.

    Raises:
        UsageError: a trusted key's path is empty.
        SignatureError: the bundle is malformed, is signed by an unknown key, or its signature is
            invalid; a file was changed, added, removed or renamed; a trusted key cannot be read.
        CheckpointError, UnsupportedInputError: the model cannot be read, or holds a link, or
            something that is no file.
        MissingExtraError: ``patchc[oms]`` is not installed.
    """
    model, signature = Path(model), Path(signature)
    keys = load_trusted_curves(listed(trusted))
    bundle = read_bundle(signature)
    key = _signer(bundle, keys)
    files = list_files(model, follow_links)
    own = _place_inside(signature, model)
    present = [name for name in files.signed if name != own]
    with Runtime(threads, progress=progress) as runtime:
        _check_names(bundle, model, present, runtime)
        _check_contents(bundle, model, present, runtime)
    left_out = (*files.left_out, *([own] if own else []))
    return VerifyModelReport(
        model=model,
        signature=signature,
        signed_as=bundle.model,
        digest=bundle.digest,
        key=key.path,
        key_id=key.id,
        files=tuple(present),
        left_out=left_out,
    )


def _signer(bundle: ModelBundle, keys: dict[str, CurveKey]) -> CurveKey:
    """The trusted key that signed a bundle."""
    key = keys.get(bundle.key_id)
    if key is None:
        known = ", ".join(f"{one[:16]}… ({keys[one].path})" for one in list(keys)[:_MOST_NAMED])
        raise SignatureError(
            f"{bundle.path} is signed by the key {bundle.key_id:.16}…, which is not trusted; "
            f"trusted: {known}"
        )
    if not key.is_signer(bundle.signature, bundle.message):
        raise SignatureError(
            f"{bundle.path}: the signature is not that of {key.path}, whose id it gives: the "
            "bundle was changed after it was signed, or forged"
        )
    return key


def _place_inside(signature: Path, model: Path) -> str | None:
    """Where in the model's folder the bundle is, if it is there; it may be a link, as in a hub."""
    place = Path(os.path.realpath(signature.parent)) / signature.name
    folder = Path(os.path.realpath(model))
    if folder == place or not place.is_relative_to(folder):
        return None
    return place.relative_to(folder).as_posix()


def _check_names(
    bundle: ModelBundle, model: Path, present: Collection[str], runtime: Runtime
) -> None:
    added = sorted(set(present) - bundle.files.keys())
    removed = sorted(bundle.files.keys() - set(present))
    if [WHOLE] in (added, removed):
        raise SignatureError(
            f"{bundle.path} signs a {'folder' if added == [WHOLE] else 'single file'}, and {model} "
            "is none; name what was signed"
        )
    for old, new in _renamed(bundle, model, removed, added, runtime):
        raise SignatureError(
            f"{model}: {old!r:.80} was renamed to {new!r:.80} after the model was signed with "
            f"{bundle.path}"
        )
    if removed:
        raise SignatureError(
            f"{model}: {_listed(removed)} {_was(removed)} signed and not there; get the model again"
        )
    if added:
        raise SignatureError(
            f"{model}: {_listed(added)} {_was(added)} added after the model was signed with "
            f"{bundle.path}; remove what you do not need, or have the model signed again"
        )


def _renamed(
    bundle: ModelBundle, model: Path, removed: list[str], added: list[str], runtime: Runtime
) -> list[tuple[str, str]]:
    if not removed or not added:
        return []
    found = digest_files(model, added, bundle.hash_type, runtime)
    names = {bundle.files[old]: old for old in removed}
    return [(names[found[new]], new) for new in added if found[new] in names]


def _check_contents(
    bundle: ModelBundle, model: Path, present: Sequence[str], runtime: Runtime
) -> None:
    found = digest_files(model, present, bundle.hash_type, runtime)
    changed = [name for name in present if found[name] != bundle.files[name]]
    if changed:
        where = f"{model}" if changed == [WHOLE] else f"{model}: {_listed(changed)}"
        raise SignatureError(
            f"{where} {_was(changed)} changed after the model was signed with {bundle.path}; get "
            "the model again"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(f"{name!r:.80}" for name in names[:_MOST_NAMED]) + more


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"
