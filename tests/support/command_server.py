"""A process that has patchc and torch imported, and becomes a ``patchc`` program once per request.

Importing them takes longer than most commands of the documentation. A request comes over a socket:
the arguments, folder and environment of a ``patchc`` on the PATH, with its three standard streams.
A fork then runs the program's own entry point on them, and sends back its exit code.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    server.shutdown(socket.SHUT_WR)
    code = server.recv(16)
sys.exit(int(code) if code else "the command ended without an exit code")
"""
"""The program that pages find as ``patchc``."""


@contextmanager
def command_server(folder: Path, compile_locks: Path | None) -> Iterator[Path]:
    """Start a server; gives the folder that has the program ``patchc``."""
    address = folder / "socket"
    programs = folder / "bin"
    programs.mkdir()
    client = programs / "patchc"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(stat.S_IRWXU)
    arguments = [sys.executable, __file__, str(address), str(compile_locks or "")]
    with subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}) as server:
        try:
            while not address.exists():
                assert server.poll() is None, "the server of commands did not start"
                time.sleep(0.05)
            yield programs
        finally:
            server.terminate()


def serve(address: str, compile_locks: str) -> None:
    """Import all that commands need, and answer requests until the process is ended."""
    import transformers
    from transformers.models.llama import modeling_llama

    import patchc
    from patchc.cli import main

    loaded = [getattr(patchc, name) for name in patchc.__all__]
    loaded += [transformers.PreTrainedTokenizerFast, modeling_llama]
    loaded += [main.app, *map(main._load, main._COMMANDS)]
    assert all(loaded)
    if compile_locks:
        from compile_once import compile_once

        compile_once(Path(compile_locks))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address + ".new")
        listening.listen()
        Path(address + ".new").rename(address)
        while True:
            caller, _ = listening.accept()
            if not os.fork():
                listening.close()
                _answer(caller)
            caller.close()
            _reap()


def _answer(caller: socket.socket) -> None:
    content, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    while more := caller.recv(1 << 20):
        content += more
    code = _run(json.loads(content), streams)
    caller.send(str(code).encode())
    os._exit(0)


def _run(asked: dict[str, Any], streams: list[int]) -> int:
    from patchc.cli.entry import main

    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv = ["patchc", *asked["arguments"]]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    serve(*sys.argv[1:])
