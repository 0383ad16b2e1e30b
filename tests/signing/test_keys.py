"""Key files: what keygen writes, and which private keys sign."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from failing_renames import at_rename
from golden_patch import golden_bytes
from signed_patches import FIRST, SECOND

import patchc
from patchc.errors import OutputError, SignatureError, StorageError, UsageError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.patchc").write_bytes(golden_bytes())


def sign(key: str, password: str | None = None) -> str:
    """Sign with a key; the message where it is refused."""
    before = Path("x.patchc").read_bytes()
    try:
        patchc.sign("x.patchc", key=key, password=password, detached=f"{key}.{os.urandom(4).hex()}")
    except SignatureError as error:
        return str(error)
    finally:
        assert Path("x.patchc").read_bytes() == before
    return ""


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("umask", [0o022, 0, 0o277])
def test_a_pair_has_modes_of_its_own(umask: int) -> None:
    before = os.umask(umask)
    try:
        report = patchc.keygen("key")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(Path(name).stat().st_mode) for name in ("key", "key.pub")]
    assert modes == [0o600, 0o644]
    assert (report.private, report.public) == (Path("key"), Path("key.pub"))
    assert not report.encrypted
    assert names() == ["key", "key.pub", "x.patchc"]


def test_two_pairs_differ() -> None:
    assert patchc.keygen("a").key_id != patchc.keygen("b").key_id


@pytest.mark.parametrize("taken", ["key", "key.pub"])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_replaced(taken: str, make: Callable[[Path], None]) -> None:
    make(Path(taken))
    with pytest.raises(OutputError, match=rf"output {re.escape(taken)} "):
        patchc.keygen("key")
    assert names() == sorted([taken, "x.patchc"])


def test_no_key_and_no_folder_is_to_be_removed_for_a_new_key() -> None:
    Path("folder").mkdir()
    Path("folder/model").touch()
    FIRST.write_private(Path("key"))
    for name, advice in (("folder", "; name a file"), ("key", "; choose another name")):
        with pytest.raises(OutputError, match=f"{advice}$"):
            patchc.keygen(name)


@pytest.mark.parametrize("number", [0, 1])
def test_no_half_of_a_pair_stays(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    at_rename(monkeypatch, number, lambda: errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        patchc.keygen("key")
    assert names() == ["x.patchc"]


def test_a_name_of_a_public_key() -> None:
    with pytest.raises(UsageError, match=r"key\.pub would be the private key, and \*\.pub are"):
        patchc.keygen("key.pub")


@pytest.mark.parametrize("password", ["Zaubertränk ∞", " " * 1000])
def test_an_encrypted_key_opens_with_its_password_alone(password: str) -> None:
    assert patchc.keygen("key", password=password).encrypted
    text = Path("key").read_bytes()
    assert b"ENCRYPTED" in text
    assert not sign("key", password)
    assert "does not open with this password" in sign("key", password + "x")
    assert "is encrypted, and there is no password" in sign("key")
    assert forms.load_pem_private_key(text, password.encode())


@pytest.mark.parametrize(
    ("password", "told"), [("", "is empty; give one"), (b"", "is empty"), ("a\udcff", "has half a")]
)
def test_a_password_that_is_none(password: str | bytes, told: str) -> None:
    with pytest.raises(UsageError, match=f"the password {told}") as caught:
        patchc.keygen("key", password=password)
    assert caught.value.__cause__ is None
    assert names() == ["x.patchc"]
    FIRST.write_private(Path("key"))
    with pytest.raises(UsageError, match=f"the password {told}"):
        patchc.sign("x.patchc", key="key", password=password)


def test_a_password_of_a_key_that_has_none_is_not_used() -> None:
    FIRST.write_private(Path("key"))
    assert not sign("key", "swordfish")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
def test_a_key_that_others_can_use(mode: int) -> None:
    FIRST.write_private(Path("key")).chmod(mode)
    assert "can be used by others on this system; run `chmod 600 key`" in sign("key")
    Path("key").rename("my key")
    assert "run `chmod 600 'my key'`" in sign("my key")
    Path("my key").rename("key")
    Path("key").chmod(0o600)
    assert not sign("key")
    Path("key").chmod(0o400)
    assert not sign("key")


def _another_kind() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())


def _pem() -> bytes:
    return FIRST.write_private(Path("whole")).read_bytes()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda: b"", "holds no key"),
        (lambda: b"\xff\x00", "holds no key"),
        (lambda: _pem() + _pem(), "holds several keys"),
        (lambda: _pem()[:70], "is damaged"),
        (lambda: _pem().replace(b"MC4C", b"MC5C"), "is damaged"),
        (lambda: SECOND.pem, "is not a private key"),
        (_another_kind, "is not an Ed25519 key"),
        (lambda: b"x" * (1 << 15), "too large to be a key"),
    ],
    ids=["empty", "bytes", "two", "cut", "damaged", "public", "P-256", "large"],
)
def test_a_file_that_is_no_key(text: Callable[[], bytes], reason: str) -> None:
    content = text()
    Path("key").touch(0o600)
    Path("key").write_bytes(content)
    message = sign("key")
    assert message.startswith("key key ")
    assert reason in message


def test_a_key_of_openssh() -> None:
    """Such a file is whole: to take another copy of it would not help."""
    text = FIRST.private.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()
    )
    Path("key").touch(0o600)
    Path("key").write_bytes(text)
    assert "in another form than PKCS #8, as OpenSSH's keys are; make a key with" in sign("key")


def test_places_that_are_no_files() -> None:
    os.mkfifo("pipe", 0o600)
    assert "it is a pipe, and a file is needed" in sign("pipe")
    Path("folder").mkdir(0o700)
    assert "it is a folder, and a file is needed" in sign("folder")
    with pytest.raises(FileNotFoundError, match="cannot read the key none: no such file"):
        patchc.sign("x.patchc", key="none")
