"""Sign a model's files as OpenSSF model signing does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import open_checkpoint
from patchc.checkpoint.journal_path import is_own_file
from patchc.errors import OutputError, PartlyPatchedError, SignatureError
from patchc.files import staged_file
from patchc.hub_models import takes_models
from patchc.model_bundle.bundle_file import read_bundle
from patchc.model_bundle.curve_keys import check_private
from patchc.model_bundle.file_digests import digest_files
from patchc.model_bundle.model_files import list_files
from patchc.model_bundle.written import HASH_TYPE, check_library, write_bundle
from patchc.output_checks import check_output
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.signing.keys import password_bytes


@dataclass(frozen=True)
class SignModelReport:
    """A model that was signed.

    Attributes:
        out: the bundle that was written.
        model: the model.
        digest: SHA-256 over the digests of its files, which stands for the model, in hexadecimal.
        key_id: of the key: the SHA-256 of the public key's PEM text, in hexadecimal.
        files: the files that are signed.
        left_out: entries of the folder that are not: git's own.
    """

    out: Path
    model: Path
    digest: str
    key_id: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]


@takes_models("model")
def sign_model(
    model: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str],
    out: str | os.PathLike[str],
    password: str | bytes | None = None,
    follow_links: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> SignModelReport:
    """Write an OpenSSF model-signing bundle: the signed SHA-256 of every file of a model.

    ``model_signing verify key`` accepts it, and :func:`verify_model`. It needs ``patchc[oms]``,
    and no network.

    Args:
        model: a checkpoint folder or a safetensors file.
        key: a private key of curve P-256, P-384 or P-521, a PEM file.
        out: the bundle to write, outside the model's folder; must not exist.
        password: of an encrypted key.
        follow_links: sign what links to files lead to, as in a hub's cache; otherwise a link is
            refused.
        threads: files that are read at once; None means one per core.
        progress: called with the bytes done.

    Raises:
        CheckpointError, UnsupportedInputError: the model cannot be read, or holds a link, or
            something that is no file.
        PartlyPatchedError: an interrupted run in place has left something in it.
        SignatureError: the key cannot be used.
        UsageError: the password is empty.
        MissingExtraError: ``patchc[oms]`` is not installed.
        OutputError, StorageError: the bundle cannot be written.
    """
    model, key, out = Path(model), Path(key), Path(out)
    with open_checkpoint(model):
        pass
    files = list_files(model, follow_links)
    for name in files.signed:
        if is_own_file(Path(name).name):
            raise PartlyPatchedError(
                f"{model / name} is left from a run that was cut off; run the same command again, "
                "and sign the model then"
            )
    secret = password_bytes(password)
    check_private(key, secret)
    check_library()
    check_output(out, (model, key))
    if out.is_dir():
        raise OutputError(f"output {out} is a folder and a bundle is a file; name a file")
    with Runtime(threads, progress=progress) as runtime:
        digests = digest_files(model, files.signed, HASH_TYPE, runtime)
    with staged_file(out) as staging:
        write_bundle(staging, model, digests, key, secret, follow_links)
        bundle = read_bundle(staging)
        if bundle.files != digests:
            raise SignatureError(f"{out}: the bundle is not of {model}; install patchc[oms] anew")
    return SignModelReport(out, model, bundle.digest, bundle.key_id, files.signed, files.left_out)
