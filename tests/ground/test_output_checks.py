"""What is refused before anything is written: paths out of reach, and too little space."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from staged_kinds import names

from patchc.errors import OutputError, PatchcError, StorageError
from patchc.output_checks import check_output, check_space


def test_a_path_without_a_working_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for out in (Path("out"), Path(), Path("..")):
        for call in (lambda out: check_output(out, ()), lambda out: check_space(out, 1)):
            with pytest.raises(StorageError, match="cannot reach"):
                call(out)
    check_output(tmp_path / "out", ())
    check_space(tmp_path / "out", 1)


def test_links_that_lead_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for out in (tmp_path / "one", tmp_path / "one" / "out"):
        with pytest.raises((OutputError, StorageError), match=r"link|is no folder"):
            check_output(out, (tmp_path / "input",))
    assert names(tmp_path) == {"one", "two"}


@pytest.mark.parametrize("below", [Path("out"), Path("new", "out")])
def test_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    with pytest.raises(OutputError, match=f"the permissions of {tmp_path} forbid it"):
        check_output(tmp_path / below, ())


def test_a_folder_that_may_not_be_entered_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without the right to search a folder on the way."""
    closed, stat = tmp_path / "closed", os.stat

    def refuse(path: object, **options: bool) -> os.stat_result:
        if str(path).startswith(f"{closed}{os.sep}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)  # type: ignore[arg-type]

    closed.mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PatchcError, match=r"closed.*Permission denied; change the permissions"):
        check_output(closed / "out", ())


def test_what_a_killed_run_left_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".out.0123abcd.partial"
    left.mkdir()
    (left / "model.safetensors").write_bytes(os.urandom(1 << 20))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check_space(tmp_path / "out", 1 << 20)
    with pytest.raises(StorageError, match=r"it needs 2,097,152 bytes and .* has 1,\d{3},\d{3} fr"):
        check_space(tmp_path / "out", 2 << 20)
    with pytest.raises(StorageError, match="has 1,000 free"):
        check_space(tmp_path / "other", 1 << 20)
