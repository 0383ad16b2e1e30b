"""The one error tree. Each class carries the exit code that the command line returns for it.

The table of exit codes in ``docs/reference/exit-codes.md`` is checked against this module by a
test.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class PatchcError(Exception):
    """Base of every error that patchc raises on purpose.

    The message says what is wrong, where (file, tensor, chunk) and what to do next.
    """

    exit_code = 1


class UsageError(PatchcError, ValueError):
    """A parameter, option or recipe is wrong; also a ``ValueError``."""

    exit_code = 2


class CheckpointError(PatchcError):
    """A checkpoint is missing, unreadable or malformed."""

    exit_code = 3


class UnsupportedInputError(PatchcError):
    """An input is recognised, and is of a kind that this command does not take."""

    exit_code = 4


class CodeError(UnsupportedInputError):
    """A patch writes files that a loader or an interpreter would run, and that was not allowed."""


class PatchFormatError(PatchcError):
    """A patch file is missing, truncated or corrupt."""

    exit_code = 5


class UnsupportedPatchError(PatchcError):
    """A patch file needs a version, feature or codec that this reader does not have."""

    exit_code = 6


class WrongBaseError(PatchcError):
    """The model is not the one that the patch was made for."""

    exit_code = 7


class AlreadyPatchedError(PatchcError):
    """The model to patch already holds the patch."""

    exit_code = 8


class NotPatchedError(PatchcError):
    """The model to revert does not hold the patch: it is the base."""

    exit_code = 9


class PartlyPatchedError(PatchcError):
    """Some chunks of the model hold the patch and others do not."""

    exit_code = 10


class OutputError(PatchcError):
    """The output may not be written there: not empty, or inside an input."""

    exit_code = 11


class StorageError(PatchcError):
    """The operating system refused a read or a write: disk full, permissions, input/output."""

    exit_code = 12


class MismatchError(PatchcError):
    """Inputs do not fit each other: names, shapes, dtypes, missing scores, patches apart."""

    exit_code = 13


class NumericError(PatchcError):
    """A value is not finite, or overflows the base's dtype."""

    exit_code = 14


class DeriveError(PatchcError):
    """Derivation cannot go on: bad data, no chat template, or a loss that is not finite."""

    exit_code = 15


class MissingExtraError(PatchcError):
    """The command needs a package that this installation does not have."""

    exit_code = 16


class ResultMismatchError(PatchcError):
    """The written result is not the one that the patch promises."""

    exit_code = 17


class EvaluateError(PatchcError):
    """Evaluation cannot go on: bad requests, replies, judge or results file."""

    exit_code = 18


class RankError(PatchcError):
    """Another rank of a run under torchrun has left, is silent, or has other inputs."""

    exit_code = 19


class UnfixedError(PatchcError):
    """No patch was written: none that was tried lowers harm and over-refusal within the limits.

    Attributes:
        report: the :class:`~patchc.FitReport` or :class:`~patchc.FixReport` without a patch.
    """

    exit_code = 20

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class InUseError(PatchcError):
    """Another process works on the model in place, or on the same output."""

    exit_code = 21


class UnsupportedSystemError(PatchcError):
    """The operating system or the processor lacks what the command needs."""

    exit_code = 22


class SignatureError(PatchcError):
    """The patch is not signed as is asked for, or a key or a detached signature is no such file."""

    exit_code = 23


class SideFileError(PatchcError):
    """The weights are those that the patch is for, and files beside them are not."""

    exit_code = 24


class _MissingFileError(FileNotFoundError):
    """Makes an error one for a file that is not there, with a message of patchc's own."""

    def __init__(self, message: str, filename: object = None) -> None:
        super().__init__(message)
        self.errno = errno.ENOENT
        self.strerror = os.strerror(self.errno)
        self.filename = filename

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the file's name in a copy, and on the way from another process."""
        return type(self), (*self.args, self.filename), vars(self)


class MissingInputError(_MissingFileError, UsageError):
    """A recipe file or a judge's folder is not there; also a ``FileNotFoundError``."""


class MissingCheckpointError(_MissingFileError, CheckpointError):
    """A checkpoint, or a file of it, is not there; also a ``FileNotFoundError``."""


class MissingPatchError(_MissingFileError, PatchFormatError):
    """A patch file is not there; also a ``FileNotFoundError``."""


class MissingScoresError(_MissingFileError, MismatchError):
    """There are no scores beside a tuned model; also a ``FileNotFoundError``."""


class MissingConversationsError(_MissingFileError, DeriveError):
    """A file of conversations is not there; also a ``FileNotFoundError``."""


class MissingRequestsError(_MissingFileError, EvaluateError):
    """A file of requests, replies, results or text is not there; also a ``FileNotFoundError``."""


class MissingKeyError(_MissingFileError, SignatureError):
    """A key, or a detached signature, is not there; also a ``FileNotFoundError``."""


def unreadable(kind: type[PatchcError], message: str, cause: OSError) -> PatchcError:
    """The error for a file that the system did not let be read.

    Where it is not there, the error is also a ``FileNotFoundError``, if ``kind`` has such a class.
    """
    if isinstance(cause, FileNotFoundError):
        for missing in kind.__subclasses__():
            if issubclass(missing, _MissingFileError):
                return missing(message, cause.filename)
    return kind(message)


@contextmanager
def import_errors(what: str, extra: str) -> Iterator[None]:
    """Turn a failed import into a :class:`MissingExtraError`: ``what`` needs an extra of patchc."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("patchc"):
            raise
        from patchc.extras import install_command  # rarely needed, and slow to import

        raise MissingExtraError(
            f"{what} needs {error.name}; install it with `{install_command(extra)}`"
        ) from error
