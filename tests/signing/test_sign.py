"""Signing: the patch stays the same bytes, and the file changes whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from build_inputs import small_inputs
from failing_renames import at_rename
from golden_patch import golden_bytes
from patch_chains import chain_of
from signed_patches import FIRST, NOW, SECOND, THIRD, TestKey, digests, signed, statement
from tiny_checkpoints import normal, nudge

import patchc
from patchc.errors import (
    InUseError,
    OutputError,
    PatchFormatError,
    SignatureError,
    StorageError,
    UsageError,
)
from patchc.formats.container.statement import parse_time
from patchc.reserved import reserved
from patchc.signing.check import check_signatures

DATA = golden_bytes()
GOLDEN = Path(__file__).parents[1] / "formats/golden"
OTHER = (GOLDEN / "update.patchc").read_bytes()
PATCH = Path("x.patchc")
KEYS = {"first": FIRST, "second": SECOND, "third": THIRD}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PATCH.write_bytes(DATA)
    for name, key in KEYS.items():
        key.write_private(Path(name))
        key.write_public(Path(f"{name}.pub"))


def sign(key: str, **more: Any) -> patchc.SignReport:
    return patchc.sign(PATCH, key=key, **more)


def counted(*keys: str, signatures: str | None = None) -> int:
    """How many of the keys have signed."""
    detached = [Path(signatures)] if signatures else []
    trusted = [Path(f"{key}.pub") for key in keys]
    with patchc.open_patch(PATCH) as patch:
        return len(check_signatures(patch, detached, trusted, 1, max(NOW, datetime.now(UTC))).valid)


def test_everything_before_the_signatures_stays_the_same_bytes() -> None:
    before = patchc.inspect(PATCH)
    report = sign("first")
    assert PATCH.read_bytes()[: len(DATA) - 96] == DATA[:-96]
    after = patchc.inspect(PATCH)
    for name in ("root", "base_digest", "result_digest", "metadata", "total"):
        assert getattr(after, name) == getattr(before, name)
    assert (report.root, report.key_id, report.added) == (before.root, FIRST.key_id, True)
    assert (after.signatures, report.key_ids) == ((FIRST.key_id,), (FIRST.key_id,))
    assert counted("first", "second") == 1
    assert sorted(path.name for path in Path().glob(".*")) == []


@pytest.mark.parametrize("name", ["additive-int8", "update", "fold", "conditional"])
def test_other_kinds_of_patches(name: str) -> None:
    data = (GOLDEN / f"{name}.patchc").read_bytes()
    PATCH.write_bytes(data)
    sign("first")
    assert PATCH.read_bytes()[: len(data) - 96] == data[:-96]
    assert counted("first") == 1
    with patchc.open_patch(PATCH) as patch:
        assert patch.signatures is not None
        subject = patch.signatures.statement.subject
        assert (subject.result is None) == bool(patch.additive)
        assert (subject.recipe, subject.kind) == (None, patch.metadata["kind"])


def test_the_statement_says_what_the_patch_is() -> None:
    sign("first", expires="2999-01-01")
    with patchc.open_patch(PATCH) as patch:
        assert patch.signatures is not None
        statement = patch.signatures.statement
    root, base, result = digests(DATA)
    subject = statement.subject
    assert (subject.root, subject.base, subject.result) == (root, base, result)
    assert (subject.chunk_bits, subject.kind, subject.recipe) == (12, "diff", None)
    assert abs(statement.issued - datetime.now(UTC)) < timedelta(minutes=5)
    assert statement.expires == datetime(2999, 1, 1, tzinfo=UTC)


def test_the_recipe_of_a_build_is_stated_by_its_digest(tmp_path: Path) -> None:
    patchc.build(
        **small_inputs().write(tmp_path), out="built.patchc", recipe=patchc.Recipe(alpha=0.1)
    )
    patchc.sign("built.patchc", key="first")
    with patchc.open_patch("built.patchc") as patch:
        text = json.dumps(patch.metadata["recipe"], sort_keys=True, separators=(",", ":"))
        assert '"alpha":0.1' in text
        assert patch.signatures is not None
        subject = patch.signatures.statement.subject
    assert (subject.kind, subject.recipe) == ("build", blake3(text.encode()).hexdigest())


def test_a_second_signer_signs_the_same_statement() -> None:
    first = sign("first", expires="2999-01-01")
    second = sign("second")
    assert (second.issued, second.expires) == (first.issued, first.expires)
    assert second.key_ids == tuple(sorted([FIRST.key_id, SECOND.key_id]))
    assert counted("first", "second") == 2
    assert sign("third", expires="2999-01-01").expires == first.expires
    assert counted("first", "second", "third") == 3


def test_the_same_key_twice_changes_nothing() -> None:
    sign("first")
    before, state = PATCH.read_bytes(), PATCH.stat()
    report = sign("first")
    assert not report.added
    assert PATCH.read_bytes() == before
    assert PATCH.stat().st_mtime_ns == state.st_mtime_ns
    sign("first", out="copy.patchc")
    assert Path("copy.patchc").read_bytes() == before


def test_a_false_signature_of_ones_own_key_is_replaced() -> None:
    """Somebody has put another signature under this key's id."""
    data = signed(DATA, FIRST).replace(FIRST.key_id.encode(), SECOND.key_id.encode())
    section = data[len(DATA) - 96 : -96]
    digest = blake3(section[32:], derive_key_context="patchc 2026-11 v1 signatures").digest()
    PATCH.write_bytes(data.replace(section[:32], digest))
    assert counted("second") == 0
    assert sign("second").added
    assert counted("second") == 1
    assert len(patchc.inspect(PATCH).signatures) == 1


def test_an_expiry_of_ones_own_takes_a_statement_of_ones_own() -> None:
    sign("first", expires="2999-01-01")
    before = PATCH.read_bytes()
    with pytest.raises(UsageError, match="expires at 2999-01-01T00:00:00Z, and yours would"):
        sign("second", expires="90d")
    assert PATCH.read_bytes() == before
    sign("second", expires="90d", detached="x.sig")
    assert PATCH.read_bytes() == before
    assert counted("first", "second", signatures="x.sig") == 2
    report = sign("second", expires="90d", replace=True)
    assert report.key_ids == (SECOND.key_id,)
    assert counted("first", "second") == 1


def test_an_expired_statement_is_not_signed_again() -> None:
    PATCH.write_bytes(signed(DATA, FIRST, expires="2026-11-29T13:00:00Z"))
    if datetime.now(UTC) < parse_time("2026-11-29T13:00:00Z"):
        pytest.skip("the clock of this machine is behind")
    with pytest.raises(UsageError, match=r"expired at 2026-11-29T13:00:00Z; give --replace"):
        sign("second")
    assert sign("second", replace=True).expires is None


def test_a_statement_of_later_is_not_signed() -> None:
    """Whoever wrote it could have a signature that begins to count long after it was made."""
    later = f"{datetime.now(UTC) + timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ}"
    parts = statement(DATA)["predicate"] | {"issued": later}
    before = signed(DATA, FIRST, predicate=parts)
    PATCH.write_bytes(before)
    with pytest.raises(UsageError, match=f"issued at {later}, which .* not reached yet; set the"):
        sign("second")
    assert PATCH.read_bytes() == before
    sign("second", replace=True)
    assert counted("first", "second") == 1


@pytest.mark.parametrize(
    "text", ["yesterday", "90", "0d", "-1d", "1w", "2026-13-01", "", "999999d", "90d " * 40]
)
def test_an_expiry_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="give days such as 90d") as caught:
        sign("first", expires=text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01T00:00:00Z", "0001-01-01"])
def test_an_expiry_that_is_past(text: str) -> None:
    with pytest.raises(UsageError, match="which is past"):
        sign("first", expires=text)
    assert PATCH.read_bytes() == DATA


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        ("2999-06-30", "2999-06-30T00:00:00Z"),
        ("2999-06-30T12:30:15Z", "2999-06-30T12:30:15Z"),
        ("2999-06-30T12:30:15+02:00", "2999-06-30T10:30:15Z"),
        ("2999-06-30T12:30:15.75", "2999-06-30T12:30:15Z"),
    ],
)
def test_expiries(text: str, expires: str) -> None:
    assert sign("first", expires=text).expires == expires


def test_the_mode_stays_and_the_old_file_is_replaced_at_once() -> None:
    PATCH.chmod(0o640)
    sign("first")
    assert stat.S_IMODE(PATCH.stat().st_mode) == 0o640
    PATCH.chmod(0o600)
    sign("second", out="copy.patchc")
    assert stat.S_IMODE(Path("copy.patchc").stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("number", [0, 1])
def test_after_an_error_the_patch_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = sorted(Path().iterdir())
    at_rename(monkeypatch, number, lambda: errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        sign("first")
    assert PATCH.read_bytes() == DATA
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("left", ["partial", "before"])
def test_after_a_kill_the_same_call_clears_up(left: str) -> None:
    """Where the system cannot exchange two files, the patch itself can have a hidden name."""
    sign("first")
    signed_once = PATCH.read_bytes()
    hidden = Path(f".x.patchc.0123abcd.{left}")
    PATCH.rename(hidden)
    if left == "partial":
        PATCH.write_bytes(signed_once)
    assert not sign("first").added
    assert PATCH.read_bytes() == signed_once
    assert not list(Path().glob(".*"))


def test_links_are_not_replaced() -> None:
    Path("link.patchc").symlink_to(PATCH)
    with pytest.raises(OutputError, match=r"link\.patchc is a link to .*x\.patchc; name that"):
        patchc.sign("link.patchc", key="first")
    patchc.sign("link.patchc", key="first", out="out.patchc")
    assert PATCH.read_bytes() == DATA
    os.link(PATCH, "second.patchc")
    with pytest.raises(OutputError, match="has 2 names"):
        sign("first")
    assert PATCH.read_bytes() == DATA


def test_one_at_a_time() -> None:
    with reserved(PATCH, PATCH), pytest.raises(InUseError):
        sign("first")
    assert PATCH.read_bytes() == DATA


def test_who_signs_at_the_same_time_loses_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read again once nobody else works on it."""
    import patchc.verbs.sign as module

    staged, done = module.staged_file, []

    def late(*given: Any, **more: Any) -> Any:
        if not done:
            done.append(1)
            sign("second")
        return staged(*given, **more)

    monkeypatch.setattr(module, "staged_file", late)
    sign("first")
    assert counted("first", "second") == 2


def test_another_patch_in_its_place_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    import patchc.verbs.sign as module

    staged = module.staged_file

    def late(*given: Any, **more: Any) -> Any:
        PATCH.write_bytes(OTHER)
        return staged(*given, **more)

    monkeypatch.setattr(module, "staged_file", late)
    with pytest.raises(OutputError, match="has changed meanwhile"):
        sign("first")
    assert PATCH.read_bytes() == OTHER


@pytest.mark.parametrize("place", [17, -200])
def test_a_damaged_patch_is_not_signed(place: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= 1
    PATCH.write_bytes(changed)
    with pytest.raises(PatchFormatError, match=r"x\.patchc"):
        sign("first")
    assert PATCH.read_bytes() == changed


def test_outputs_that_exclude_each_other() -> None:
    for given in ({"out": "a", "detached": "b"}, {"detached": "b", "replace": True}):
        with pytest.raises(UsageError, match="a detached signature is a file of its own"):
            sign("first", **given)


@pytest.mark.parametrize("where", ["out", "detached"])
def test_no_other_file_is_replaced(where: str) -> None:
    Path("there").write_text("mine")
    Path("folder").mkdir()
    for name, reason in (("there", "already exists"), ("folder", "folder"), (PATCH, "the input")):
        with pytest.raises(OutputError, match=reason):
            sign("first", **{where: name})
    assert Path("there").read_text() == "mine"


def test_the_disk_needs_room_for_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature beside a patch is small, however large the patch is."""
    PATCH.write_bytes(OTHER)
    usage = shutil.disk_usage(".")._replace(free=len(OTHER) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr("patchc.verbs.sign.MAX_ENVELOPE", len(OTHER) - 1)
    sign("first", detached="x.sig")
    with pytest.raises(StorageError, match=rf"it needs {len(OTHER):,} bytes and .* free"):
        sign("first")
    assert PATCH.read_bytes() == OTHER


def test_a_seventeenth_signature() -> None:
    keys = [TestKey(number) for number in range(10, 26)]
    PATCH.write_bytes(signed(DATA, *keys))
    with pytest.raises(SignatureError, match=r"holds 16 signatures; write yours with --detached"):
        sign("first")
    sign("first", detached="x.sig")
    assert counted("first", signatures="x.sig") == 1


def test_a_copy_with_a_name_drops_the_signatures() -> None:
    sign("first")
    sign("second")
    report = patchc.annotate(PATCH, name="fix", out="named.patchc")
    assert report.signatures_dropped == 2
    assert patchc.inspect("named.patchc").signatures == ()
    again = patchc.annotate("named.patchc", name="other", out="other.patchc")
    assert again.signatures_dropped == 0
    assert re.fullmatch("[0-9a-f]{64}", again.root)


def test_a_fold_of_signed_patches_is_not_signed(tmp_path: Path) -> None:
    weights = [{"up.weight": normal((64, 64), "BF16", 1)}]
    for seed in (2, 3):
        weights.append({"up.weight": nudge(weights[-1]["up.weight"], 0.3, seed)})
    patches = chain_of(tmp_path, weights).patches
    for patch in patches:
        patchc.sign(patch, key="first")
    patchc.fold(patches, out="all.patchc")
    assert patchc.inspect("all.patchc").signatures == ()
    assert len(patchc.inspect("all.patchc").folded) == 2
