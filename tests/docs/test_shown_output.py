"""What counts as the output that a page shows."""

from __future__ import annotations

import pytest
from shown_output import matches


@pytest.mark.parametrize(
    ("shown", "real", "any_number", "same"),
    [
        ("wrote 3 files", "wrote 3 files\n", False, True),
        ("wrote 3 files", "wrote 4 files\n", False, False),
        ("wrote 3 files", "wrote 1,024 files\n", True, True),
        ("wrote 3 files", "wrote no files\n", True, False),
        ("root  a666f4a6", "root    0badcafe\n", True, True),
        ("first\n...\nlast", "first\nlast\n", False, True),
        ("first\n...\nlast", "first\na\nb\nlast\n", False, True),
        ("first\n...\nlast", "first\na\nb\n", False, False),
        ("from ... to 0", "from one to 0\n", False, True),
        ("from ... to 0", "from one\nto 0\n", False, False),
        ("", "something\n", False, False),
        ("done", "patchc: fix: fit 5%, 1 of 20 steps\ndone\n", False, True),
        ("done", "patchc: warning: odd\ndone\n", False, False),
    ],
)
def test_a_page_shows_the_output(shown: str, real: str, any_number: bool, same: bool) -> None:
    assert matches(shown, real, any_number=any_number) is same
