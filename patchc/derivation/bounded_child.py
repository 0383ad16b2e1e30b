"""Runs a function in a fork of this process, which may take a stated time and memory."""

from __future__ import annotations

import gc
import os
import resource
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Answer = tuple[bool, str]

_HEAD = struct.Struct("<?Q")
_PARALLELISM = "TOKENIZERS_PARALLELISM"
_SIZE = Path("/proc/self/statm")


class ChildEndedError(Exception):
    """The child ended before it had answered; ``took_too_long`` says whether for its time."""

    def __init__(self, ended_by: int) -> None:
        super().__init__(signal.Signals(ended_by).name if ended_by else "no answer")
        self.took_too_long = ended_by == signal.SIGXCPU


def run_bounded(
    inputs: Sequence[T], answer: Callable[[T], Answer], *, seconds: int, memory: int
) -> Iterator[Answer]:
    """Yield the answer to each input; ``answer`` runs in a fork and has no effects here.

    It runs Python alone: threads of this process are not there in a fork.

    Args:
        inputs: what is answered, one after the other.
        answer: gives a mark and a text without lone surrogates; an exception ends the child.
        seconds: processor time for each.
        memory: bytes of address space beyond what this process has.

    Raises:
        ChildEndedError: it took longer, or broke down.
        OSError: the operating system refused a process.
    """
    receiver, sender = os.pipe()
    child = _fork()
    if child == 0:
        os.close(receiver)
        _answer_all(sender, inputs, answer, seconds, memory)  # does not return
    os.close(sender)
    ended = False
    try:
        with os.fdopen(receiver, "rb") as answers:
            for _ in inputs:
                head = answers.read(_HEAD.size)
                mark, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (False, 0)
                content = answers.read(length)
                ended = len(head) < _HEAD.size or len(content) < length
                if ended:
                    break
                yield mark, content.decode()
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
        ended_by = _wait(child)
    if ended:
        raise ChildEndedError(ended_by)


def _answer_all(
    sender: int, inputs: Sequence[T], answer: Callable[[T], Answer], seconds: int, memory: int
) -> None:
    try:
        gc.disable()  # what would be collected may belong to the parent: files, folders
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if _SIZE.exists():  # on Linux; other systems do not enforce this limit
            pages = int(_SIZE.read_text().split()[0])
            _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)
        with os.fdopen(sender, "wb") as answers:
            for one in inputs:
                _limit(resource.RLIMIT_CPU, _seconds_used() + seconds)
                mark, text = answer(one)
                content = text.encode()
                answers.write(_HEAD.pack(mark, len(content)) + content)
                answers.flush()
    finally:
        os._exit(0)


def _wait(child: int) -> int:
    """Return the signal that ended a child; 0 where none did, or the system does not tell.

    It does not where signals of children are ignored, as a program that starts this one may say.
    """
    try:
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        return 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _seconds_used() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int(used.ru_utime + used.ru_stime)


def _fork() -> int:
    with warnings.catch_warnings(), _quiet_tokenizers():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which it does not use
        return os.fork()


@contextmanager
def _quiet_tokenizers() -> Iterator[None]:
    """Keep the library tokenizers from warning of the fork, in which it is not used."""
    stated = _PARALLELISM in os.environ
    os.environ.setdefault(_PARALLELISM, "true")
    try:
        yield
    finally:
        if not stated:
            del os.environ[_PARALLELISM]
