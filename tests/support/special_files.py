"""Special files where commands want files, and the commands with a valid value for each path."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Timer

from command_line import run
from curve_keys_made import write_keys
from safetensors.torch import load_file, save_file
from tiny_llama import PAIRS, write_base, write_data

_HUNG = 60.0
_REQUESTS = "--harmful harmful.jsonl --harmless harmless.jsonl"
_MEASURED = f"{_REQUESTS} --utility utility.jsonl --reference reference.txt"
_TRUST = "--trusted keys --signature fix.patchc.sig"
_PARTS = "--se models/tuned --osm models/tuned"
_SPLIT = " ".join(
    f"--{part}-{kind} {part}-{kind}.jsonl"
    for kind in ("harmful", "harmless", "utility")
    for part in ("dev", "test")
)

COMMANDS = (
    f"fix models/chat {_MEASURED} -o fixed --config config.toml",
    f"fix models/chat {_SPLIT} --reference reference.txt -o fixed",
    "derive models/chat --data harmful.jsonl --scratch scratch -o work --config config.toml",
    "derive models/chat --objective margin --data harmful.jsonl --harmless harmless.jsonl -o work",
    "derive models/chat --objective npo --data harmful.jsonl --anchor harmless.jsonl "
    "--anchor-weight 1 -o work",
    f"build models/chat {_PARTS} --se-scores scores --osm-scores scores --recipe steps.toml "
    "-o new.patchc --config config.toml",
    "build models/chat --recipe task.toml --tuned models/tuned -o new.patchc",
    "diff models/chat models/tuned -o new.patchc --config config.toml",
    f"apply fix.patchc models/chat -o new {_TRUST} --config config.toml",
    "apply fix.patchc models/chat --in-place --repair-from models/copy",
    f"revert fix.patchc models/tuned -o new {_TRUST} --config config.toml",
    "revert fix.patchc models/tuned --in-place --repair-from models/copy",
    f"verify fix.patchc models/chat {_TRUST} --config config.toml",
    "inspect fix.patchc --config config.toml",
    "report fix.patchc replies.jsonl -o page.html --config config.toml",
    "status models/chat fix.patchc --config config.toml",
    "fold fix.patchc next.patchc --base models/chat -o new.patchc --config config.toml",
    f"fold fix.patchc next.patchc -o new.patchc {_TRUST} --signature next.patchc.sig",
    "annotate fix.patchc --name n --results report.json -o new.patchc --config config.toml",
    "keygen key --encrypt --password-file password --config config.toml",
    "sign fix.patchc --key locked --password-file password -o new.patchc --config config.toml",
    "sign fix.patchc --key own --detached new.sig",
    "sign-model models/chat --key locked-curve --password-file password -o new.sig "
    "--config config.toml",
    "verify-model models/chat --signature model.sig --trusted curves --config config.toml",
    f"evaluate models/chat --patch fix.patchc {_MEASURED} {_TRUST} -o results.jsonl "
    "--generations replies.jsonl --plot plot.png --config config.toml",
    f"evaluate models/chat --turns fix.patchc --together fix.patchc {_REQUESTS} -o results.jsonl",
    f"landscape models/chat --patch fix.patchc {_REQUESTS} --utility utility.jsonl {_TRUST} "
    "-o results.jsonl --figures figures --config config.toml",
    f"sweep models/chat {_MEASURED} {_PARTS} --recipe steps.toml -o table.jsonl --figures figures "
    "--config config.toml",
    f"sweep models/chat {_REQUESTS} --recipe task.toml --tuned models/tuned -o table.jsonl",
    f"fit models/chat {_MEASURED} {_PARTS} --recipe steps.toml -o new.patchc "
    "--recipe-out recipe-out.toml --trace trace.csv --figure figure.png --config config.toml",
    f"fit models/chat {_REQUESTS} --recipe task.toml --tuned models/tuned -o new.patchc",
    "demo -o demo --config config.toml",
    "warm-up --config config.toml",
)
"""Each path option of each command, with a value that it takes."""

OUTPUTS = ("-o", "--detached", "--plot", "--figures", "--recipe-out", "--trace", "--figure")
PLAIN = ("--name", "--objective", "--anchor-weight")
"""Options of these commands whose values are no paths."""


def named_paths(command: str) -> list[tuple[str, str]]:
    """The paths that a command names, each with its option or the path before it."""
    pairs = pairwise(command.split())
    return [
        (before, word) for before, word in pairs if before not in PLAIN and not word.startswith("-")
    ]


def write_place(folder: Path) -> None:
    """Write what the commands read; the working folder is changed to it."""
    os.chdir(folder)
    write_base(Path("models/chat"))
    weights = load_file("models/chat/model.safetensors")
    for name in ("tuned", "more"):
        shutil.copytree("models/chat", f"models/{name}")
        weights["model.norm.weight"] = weights["model.norm.weight"] * 2
        save_file(weights, f"models/{name}/model.safetensors", {"format": "pt"})
    shutil.copytree("models/chat", "models/copy")
    Path("scores").mkdir()
    save_file({name: value.float() for name, value in weights.items()}, "scores/scores.safetensors")
    shutil.copy("scores/scores.safetensors", "models/tuned")
    for name in ("harmful", "harmless"):
        write_data(Path(f"{name}.jsonl"))
        for part in ("dev", "test"):
            write_data(Path(f"{part}-{name}.jsonl"))
    questions = [{"prompt": pair["prompt"], "answer": "ash"} for pair in PAIRS]
    for name in ("utility", "dev-utility", "test-utility"):
        write_data(Path(f"{name}.jsonl"), questions)
    write_data(Path("replies.jsonl"), ({"prompt": p["prompt"], "reply": "ash"} for p in PAIRS))
    for name, text in {
        "reference.txt": "mix a tea\n",
        "config.toml": "",
        "steps.toml": 'method = "safepatching"\n',
        "task.toml": 'method = "task-arithmetic"\n',
        "password": "secret\n",
        "report.json": "{}",
    }.items():
        Path(name).write_text(text)
        Path(name).chmod(0o600)
    write_keys(Path(), "locked-curve", password=b"secret")
    write_keys(Path(), "curve")
    for command in (
        "diff models/chat models/tuned --codec rice -o fix.patchc",
        "diff models/tuned models/more --codec rice -o next.patchc",
        "keygen own",
        "keygen locked --encrypt --password-file password",
        "sign fix.patchc --key own --detached fix.patchc.sig",
        "sign next.patchc --key own --detached next.patchc.sig",
        "sign-model models/chat --key curve -o model.sig",
    ):
        code, _, errors = run(*command.split())
        assert code == 0, errors
    for folder, key in (("keys", "own.pub"), ("curves", "curve.pub")):
        Path(folder).mkdir()
        shutil.copy(key, folder)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/null"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "pipe by a link": lambda path: (os.mkfifo(f"{path}-it"), path.symlink_to(f"{path.name}-it"))[1],
    "folder": Path.mkdir,
}
"""Makes something at a path that is no file."""


@contextmanager
def no_wait(pipe: Path) -> Iterator[None]:
    """Fail where something waits for a pipe, which is then given a writer so that it goes on."""
    hung = []

    def release() -> None:
        hung.append(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))

    timer = Timer(_HUNG, release)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for descriptor in hung:
            os.close(descriptor)
    assert not hung, f"waited for {pipe}"
