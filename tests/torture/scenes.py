"""What can happen to a command: each fault of docs/reference/failures.md, ready to be staged."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calls import Act, Call, watch_calls
from cases import Case, Place

from patchc.checkpoint.journal_path import journal_path
from patchc.locks import LockFile
from patchc.reserved import lock_of

IN_PROCESS, KILLED, FULL = "in this process", "killed", "with a full standard output"


@dataclass(frozen=True)
class Scene:
    """A fault.

    Attributes:
        before: arranges what is there when the command begins; gives what ends it.
        act: what happens at its calls, if anything does.
        more: further arguments of the command.
        how: runs it in this process or in another one.
        makes_output: somebody else makes the output.
    """

    before: Callable[[Place], Callable[[], None]] = lambda _place: lambda: None
    act: Callable[[Place], Act] | None = None
    more: tuple[str, ...] = ()
    how: str = IN_PROCESS
    makes_output: bool = False


def watch(scene: Scene, place: Place) -> Callable[[], None]:
    """Let happen what happens in a scene; gives what ends it."""
    if not scene.act:
        return lambda: None
    return watch_calls((place.folder, *place.case.inputs), scene.act(place))


def failing(error: str, wanted: Callable[[Call], bool], half: bool = False) -> Scene:
    """Calls that fail, or do half of their work before."""

    def act(call: Call) -> Any:
        if not wanted(call):
            return call.go()
        if half:
            call.half()
        code = getattr(errno, error)
        raise OSError(code, os.strerror(code), *([call.path] if call.has_path else []))

    return Scene(act=lambda _place: act)


def meddling(deed: Callable[[Path], None]) -> Scene:
    """A deed to the last shard, after the first write of weights."""

    def act_at(place: Place) -> Act:
        left = [max(place.model.glob("*.safetensors"))]

        def act(call: Call) -> Any:
            result = call.go()
            if left and writes_weights(call):
                deed(left.pop())
            return result

        return act

    return Scene(act=act_at)


def changed(deed: Callable[[Place], None], *more: str) -> Scene:
    """A model that somebody has done something to before."""

    def before(place: Place) -> Callable[[], None]:
        deed(place)
        return lambda: None

    return Scene(before=before, more=more)


def locked(path_of: Callable[[Place], Path]) -> Scene:
    """Another run, which holds a lock."""

    def before(place: Place) -> Callable[[], None]:
        lock = LockFile(path_of(place), "it")

        def end() -> None:
            with lock:
                lock.remove()

        return end

    return Scene(before=before)


def writes_weights(call: Call) -> bool:
    """Whether a call writes into a shard or another output, and not into a hidden file of its own.

    A staged output is hidden itself, or in a hidden folder.
    """
    own = (".patchc-journal", ".patchc-lock", "/in-use")
    return call.kind == "write" and not call.path.endswith(own)


def _makes_file(call: Call) -> bool:
    return call.kind in ("create", "mkdir")


def _syncs_folder(call: Call) -> bool:
    return call.kind == "sync" and Path(call.path).is_dir()


def _syncs_place(call: Call) -> bool:
    """Syncs the folder of an output that has just got its name."""
    return _syncs_folder(call) and (Path(call.path) / "out").exists()


def with_space(free_bytes: int) -> Scene:
    """Disks with little room."""

    def act(call: Call) -> Any:
        found = call.go()
        if call.name != "statvfs":
            return found
        blocks = free_bytes // found.f_frsize
        return os.statvfs_result((*found[:3], blocks, blocks, *found[5:]))

    return Scene(act=lambda _place: act)


def _kill(_place: Place) -> Act:
    def act(call: Call) -> Any:
        if writes_weights(call):
            call.half()
            os.kill(os.getpid(), signal.SIGKILL)
        return call.go()

    return act


def _interrupt(_place: Place) -> Act:
    left = [signal.SIGINT]

    def act(call: Call) -> Any:
        result = call.go()
        if left and writes_weights(call):
            signal.raise_signal(left.pop())
        return result

    return act


def _appear(place: Place) -> Act:
    def act(call: Call) -> Any:
        if call.kind == "rename" and Path(call.path).parent == place.folder:
            place.out.mkdir()  # right before the output gets its name
            (place.out / "notes.txt").write_text("mine")
        return call.go()

    return act


def _other_side(case: Case) -> Path:
    """The model on the other side of the patch than the source."""
    return next(path for path in _sides(case) if path != case.source)


def _sides(case: Case) -> list[Path]:
    assert case.source
    return [case.source.with_name(name) for name in ("base", "result")]


def _lock_of_output(place: Place) -> Path:
    """The lock that a run to the output holds."""
    if place.case.name != "derive":
        return lock_of(place.out)
    from patchc.verbs.derive_run import scratch_folder  # loads torch

    folder = scratch_folder(place.out, None)
    folder.mkdir()
    return folder / "in-use"


def _first(model: Path) -> Path:
    return min(model.glob("*.safetensors"))


def _mix(place: Place, start: int, size: int) -> None:
    """Put bytes of the other side into the first tensor of the model."""
    shard = _first(place.model)
    other = (_other_side(place.case) / shard.name).read_bytes()
    at = 8 + int.from_bytes(other[:8], "little") + start
    with shard.open("r+b") as file:
        file.seek(at)
        file.write(other[at : at + size])


def _tear(place: Place) -> None:
    _mix(place, 0, 5000)


def _spoil(place: Place) -> None:
    _tear(place)
    overwrite(_first(place.model))


def _cut_off(place: Place) -> None:
    shutil.copy(_other_side(place.case) / _first(place.model).name, place.model)


def overwrite(shard: Path) -> None:
    """Overwrite bytes of a shard's first tensor."""
    with shard.open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little") + 300)
        file.write(b"another program was here")


def _replace(shard: Path) -> None:
    new = shard.with_name("new")
    shutil.copyfile(shard, new)
    new.replace(shard)


def _cache(place: Place) -> None:
    home = place.folder / "hub" / "models--org--chat"
    blobs, snapshot = home / "blobs", home / "snapshots" / "0f3a"
    blobs.mkdir(parents=True)
    for path in sorted(path for path in place.model.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(place.model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.rename(blobs / path.name))
    shutil.rmtree(place.model)
    place.model.symlink_to(snapshot)


def _link(place: Place) -> None:
    shard = _first(place.model)
    shard.symlink_to(shard.rename(place.folder / "elsewhere"))


def _hard_link(place: Place) -> None:
    os.link(_first(place.model), place.folder / "also")


def _shadow(place: Place) -> None:
    shutil.copy(_first(place.model), place.model / "model.safetensors")


def _occupy(place: Place) -> None:
    place.out.write_text("mine")


def _mount(place: Place) -> Callable[[], None]:
    usual = os.path.ismount
    place.out.mkdir()
    os.path.ismount = lambda path: Path(path) == place.out or usual(path)

    def end() -> None:
        os.path.ismount = usual

    return end


def _name_policy(place: Place) -> Callable[[], None]:
    os.environ["PATCHC_POLICY"] = str(place.folder.parent / "policy.toml")

    def end() -> None:
        del os.environ["PATCHC_POLICY"]

    return end


SCENES = {
    "The process is killed": Scene(act=_kill, how=KILLED),
    "The disk has too little room": with_space(0),
    "The disk has too little room for scratch files": with_space(100_000),
    "The memory is too small": Scene(more=("--max-memory", "1MB")),
    "The disk fills up": failing("ENOSPC", writes_weights),
    "The file system is read-only": failing("EROFS", _makes_file),
    "The folder may not be written": failing("EACCES", _makes_file),
    "A chunk is written by half, then an I/O error": failing("EIO", writes_weights, half=True),
    "Weights cannot be read": failing("EIO", lambda call: call.name == "preadv"),
    "A run in place was cut off": changed(_cut_off),
    "A torn chunk, its journal gone": changed(_tear),
    "The same, with `--repair-from`": changed(_tear, "--repair-from", "{intact}"),
    "A foreign chunk": changed(_spoil),
    "A foreign chunk, with `--repair-from`": changed(_spoil, "--repair-from", "{intact}"),
    "Another run works on the model": locked(lambda place: journal_path(place.model)),
    "Another run works on the output": locked(_lock_of_output),
    "A shard is replaced meanwhile": meddling(_replace),
    "A shard is removed meanwhile": meddling(Path.unlink),
    "A shard is cut meanwhile": meddling(lambda shard: os.truncate(shard, 3000)),
    "A shard is overwritten meanwhile": meddling(overwrite),
    "The model is in a hub's cache": changed(_cache),
    "A shard is a link to elsewhere": changed(_link),
    "A shard has hard links": changed(_hard_link),
    "A `model.safetensors` lies beside the shards": changed(_shadow),
    "The output exists": Scene(before=changed(_occupy).before, makes_output=True),
    "The output appears meanwhile": Scene(act=_appear, makes_output=True),
    "The output is a mount point": Scene(before=_mount, makes_output=True),
    "The folder cannot be synced": failing("EINVAL", _syncs_folder),
    "The folder is synced with an I/O error": failing("EIO", _syncs_place),
    "Permission bits cannot be set": failing("EPERM", lambda call: call.kind == "chmod"),
    "The policy cannot be read": Scene(before=_name_policy),
    "Standard output is full": Scene(how=FULL),
    "Ctrl-C": Scene(act=_interrupt),
}
