"""Chromium without a window, driven over a pipe by the DevTools protocol."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

_PATIENCE = 60.0
"""Seconds after which an answer that has not come is a failure; not a measurement."""

_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    # Neither root nor most containers have a sandbox; the pages are the tests' own.
    "--no-sandbox",
    # A container's /dev/shm may be small.
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    # No name has an address: the network is off.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class Chromium:
    """A browser of its own profile in ``folder``."""

    def __init__(self, program: str, folder: Path) -> None:
        flags = [*_FLAGS, f"--user-data-dir={folder}"]
        reads, self._writes = _pipe()
        self._reads, writes = _pipe()
        # Chromium reads commands from 3 and writes answers to 4.
        redirect = f'exec "$@" 3<&{reads} 4>&{writes} {reads}<&- {writes}>&-'
        with (folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                ["bash", "-c", redirect, "bash", program, *flags],
                pass_fds=(reads, writes),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        os.close(reads)
        os.close(writes)
        self._stderr = folder / "stderr"
        self._left = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result; what happens meanwhile goes to ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event, unless it has been."""
        while not any(
            one["method"] == method and one.get("sessionId") == session for one in self.events
        ):
            self.events.append(self._next())

    def listen(self, seconds: float) -> None:
        """Take in what happens for a time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if b"\0" in self._left or select.select([self._reads], [], [], left)[0]:
                self.events.append(self._next())

    def close(self) -> None:
        """End the browser."""
        os.close(self._writes)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            os.close(self._reads)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._left:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._reads], [], [], left)
            part = os.read(self._reads, 1 << 20) if ready else b""
            assert part, f"Chromium does not answer: {self._stderr.read_text()[-2000:]}"
            self._left += part
        first, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


class Tab:
    """A page that is open, with the network off."""

    def __init__(self, browser: Chromium, path: Path, *, scripts: bool, width: int) -> None:
        self._browser, self.address = browser, path.as_uri()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._target, self.session = target, attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM", "Accessibility", "Audits"):
            self.call(f"{domain}.enable")
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(width)
        self.call("Page.navigate", url=self.address)
        browser.wait_for("Page.loadEventFired", self.session)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command to this tab."""
        return self._browser.call(method, self.session, **parameters)

    def close(self) -> None:
        """Close it."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What happened of these kinds."""
        own = (one for one in self._browser.events if one.get("sessionId") == self.session)
        return [one for one in own if one["method"] in methods]

    def requests(self) -> list[str]:
        """The addresses that the page asked for, its own among them."""
        sent = self.events("Network.requestWillBeSent")
        return [one["params"]["request"]["url"] for one in sent]

    def messages(self) -> list[dict[str, Any]]:
        """All that a developer would see: the console's lines, errors, issues, and dialogs."""
        return self.events(
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Audits.issueAdded",
            "Page.javascriptDialogOpening",
        )

    def resize(self, width: int) -> None:
        """Give the page a width, and a height."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )

    def evaluate(self, expression: str) -> Any:
        """Return what a script of the test's own finds."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self) -> None:
        """Give what comes late, such as errors of requests, a moment to come."""
        self._browser.listen(0.2)

    def press(self, key: str) -> None:
        """Press a key that has no character."""
        codes = {"Tab": 9}
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
            )

    def names(self, selector: str) -> list[tuple[str, str]]:
        """For each element, its HTML's beginning and its name in the accessibility tree."""
        root = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        found = self.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
        tree = self.call("Accessibility.getFullAXTree")["nodes"]
        known = {one.get("backendDOMNodeId"): one for one in tree if not one.get("ignored")}
        named = []
        for node in found:
            own = self.call("DOM.describeNode", nodeId=node)["node"]["backendNodeId"]
            html = self.call("DOM.getOuterHTML", nodeId=node)["outerHTML"][:200]
            named.append((html, known.get(own, {}).get("name", {}).get("value", "")))
        return named


def _pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers that do not collide with 3 and 4."""
    ends = os.pipe()
    reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return reads, writes
