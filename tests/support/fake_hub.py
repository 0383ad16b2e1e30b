"""A hub on this machine, in a thread of this process: just what a download asks it for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class FakeHub:
    """One model, and what was asked.

    Attributes:
        name: the model.
        source: the folder of its files.
        revisions: its branches and tags, and their commits.
        address: where the hub listens.
        error: a status and an error code to answer everything with.
        sent: the files that were sent.
        before_sending: called with the name of each.
    """

    name: str
    source: Path
    revisions: dict[str, str]
    address: str = ""
    error: tuple[int, str] | None = None
    sent: list[str] = field(default_factory=list)
    before_sending: Callable[[str], object] = str


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Answer requests in this block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, hub)

        do_HEAD = do_GET  # noqa: N815 (the name that is called)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def _answer(request: BaseHTTPRequestHandler, hub: FakeHub) -> None:
    path = unquote(urlsplit(request.path).path)
    about, files = f"/api/models/{hub.name}/", f"/{hub.name}/resolve/"
    if hub.error:
        _send(request, hub.error[0], b"{}", {"X-Error-Code": hub.error[1]})
    elif path.startswith(f"{about}revision/"):
        commit = hub.revisions.get(path.removeprefix(f"{about}revision/"))
        found = {"_id": "1", "id": hub.name, "sha": commit, "private": False, "tags": []}
        headers = {} if commit else {"X-Error-Code": "RevisionNotFound"}
        _send(request, 200 if commit else 404, json.dumps(found).encode(), headers)
    elif path.startswith(f"{about}tree/"):
        _send(request, 200, json.dumps(_tree(hub.source)).encode(), {})
    elif path.startswith(files):
        commit, _, name = path.removeprefix(files).partition("/")
        content = (hub.source / name).read_bytes()
        if request.command == "GET":
            hub.before_sending(name)
            hub.sent.append(name)
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit}
        _send(request, 200, content, headers)
    else:
        _send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})


def _send(
    request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]
) -> None:
    request.send_response(status)
    for name, value in (headers | {"Content-Length": str(len(content))}).items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content)


def _tree(source: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": path.relative_to(source).as_posix(),
            "size": path.stat().st_size,
            "oid": _oid(path.read_bytes()),
        }
        for path in sorted(source.rglob("*"))
        if path.is_file()
    ]


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
