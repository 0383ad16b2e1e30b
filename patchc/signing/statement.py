"""What is signed of a patch, and for how long."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from patchc.errors import UsageError
from patchc.formats import Patch, Statement

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_FORMS = "give days such as 90d, a day such as 2027-06-30, or a time such as 2027-06-30T12:00:00Z"


def state(patch: Patch, now: datetime, expires: datetime | None) -> Statement:
    """The statement about a patch that a signer signs now."""
    return Statement(patch.subject, now.astimezone(UTC).replace(microsecond=0), expires)


def parse_expiry(text: str, now: datetime) -> datetime:
    """Read when a signature expires: days from now, a day (its start in UTC), or a time in UTC.

    Raises:
        UsageError: it is none of these, or not in the future.
    """
    days = _DAYS.fullmatch(text)
    try:
        if days:
            expires = now.astimezone(UTC) + timedelta(days=int(days[1]))
        else:
            expires = datetime.fromisoformat(text)
            expires = expires.replace(tzinfo=expires.tzinfo or UTC).astimezone(UTC)
        expires = expires.replace(microsecond=0)
    except (ValueError, OverflowError):
        raise UsageError(f"expires is {text!r:.80}; {_FORMS}") from None
    if expires <= now:
        raise UsageError(f"expires is {text!r:.80}, which is past; {_FORMS}")
    return expires
