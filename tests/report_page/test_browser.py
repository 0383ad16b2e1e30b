"""The page in a browser: it loads nothing, runs nothing, and is there for every reader."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Chromium, Tab
from report_inputs import Speaker, hostile, plain, write_patch, write_results

import patchc

PHONE, DESK = 360, 1280

# Not the page's own links: Chromium remarks on them that no reader clicked.
_TOUCH = """document.querySelectorAll(':not(a[href^="#"])').forEach(one => {
    one.dispatchEvent(new MouseEvent("mouseover"));
    one.dispatchEvent(new MouseEvent("click"));
})"""

# A page with every fault that is looked for.
_LOUD = f"""<!doctype html><html lang="en"><title>Loud</title><img src="https://example.org/a.png">
<svg></svg><div inert><button>never</button></div><table><tr><td>{"wide" * 100}</td></tr></table>
<script>
document.title = "changed"; console.log("said"); onload = () => setTimeout(alert);
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("plain"), plain())


def write_page(folder: Path, say: Speaker) -> Path:
    """A page of a patch with every kind of results."""
    patch = write_patch(folder, say)
    results = list(write_results(folder / "results", patch, say).values())
    return patchc.report(patch, results, out=folder / "report.html", title=say()).out


@pytest.fixture(scope="module")
def tab(chromium: Chromium, page: Path) -> Iterator[Tab]:
    """The page as most readers see it, with scripts off and every part of it open."""
    tab = Tab(chromium, page, scripts=False, width=DESK)
    unfold(tab)
    yield tab
    tab.close()


def unfold(tab: Tab) -> None:
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def check_quiet(tab: Tab) -> None:
    """Nothing was asked for but the page, and nothing was said, until a moment later."""
    tab.settle()
    assert tab.requests() == [tab.address]
    assert tab.messages() == []


def overflow(tab: Tab) -> int:
    """Pixels by which the page is wider than the window."""
    wide: int = tab.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide


def unnamed(tab: Tab) -> list[str]:
    """What has no name in the accessibility tree, and needs one."""
    named = tab.names("svg, img, table, a, summary, button, [tabindex='0'], [role]")
    assert named
    return [html for html, name in named if not name.strip()]


def unreached(tab: Tab) -> list[str]:
    """What can have the keyboard's focus and does not get it."""
    tab.evaluate(
        "left = new Set([...document.querySelectorAll('a[href], summary, button, input, select,"
        " textarea, [tabindex]')].filter(one => one.tabIndex >= 0)); left.size"
    )
    count: int = tab.evaluate("left.size")
    for _ in range(count + 1):
        tab.press("Tab")
        tab.evaluate("left.delete(document.activeElement)")
    missed: list[str] = tab.evaluate("[...left].map(one => one.outerHTML.slice(0, 200))")
    return missed


def test_it_asks_for_nothing_and_says_nothing(tab: Tab) -> None:
    tab.call("Page.captureScreenshot")
    tab.resize(PHONE)
    tab.call("Page.printToPDF", printBackground=True)
    check_quiet(tab)


def test_every_picture_and_table_has_a_name(tab: Tab) -> None:
    assert unnamed(tab) == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_as_wide_as_the_window(tab: Tab, width: int) -> None:
    tab.resize(width)
    assert overflow(tab) == 0


def test_the_keyboard_reaches_everything(tab: Tab) -> None:
    assert unreached(tab) == []


def test_it_prints(tab: Tab) -> None:
    pdf = base64.b64decode(tab.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 0


def test_long_tables_are_printed_only_where_they_are_open(chromium: Chromium, page: Path) -> None:
    tab = Tab(chromium, page, scripts=False, width=DESK)
    tab.call("Emulation.setEmulatedMedia", media="print")
    find = "kind => [...document.querySelectorAll(kind)].map(one => one.checkVisibility())"
    assert set(tab.evaluate(f"({find})('details:not(.long) table')")) == {True}
    closed, told = "details.long:not([open])", "details.long:not([open]) > summary"
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.classList.add('long'))")
    assert set(tab.evaluate(f"({find})('{closed} table')")) == {False}
    assert set(tab.evaluate(f"({find})('{told}')")) == {True}
    unfold(tab)
    assert set(tab.evaluate(f"({find})('details table')")) == {True}
    tab.close()


def test_strangers_words_stay_words(chromium: Chromium, tmp_path: Path) -> None:
    tab = Tab(chromium, write_page(tmp_path, hostile()), scripts=True, width=PHONE)
    title = tab.evaluate("document.title")
    unfold(tab)
    assert unnamed(tab) == []
    assert overflow(tab) == 0
    tab.evaluate(_TOUCH)
    check_quiet(tab)
    assert tab.evaluate("document.title") == title
    assert tab.evaluate("document.scripts.length") == 0
    tab.close()


def test_faults_are_seen(chromium: Chromium, tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text(_LOUD, encoding="utf-8")
    tab = Tab(chromium, loud, scripts=True, width=PHONE)
    chromium.wait_for("Page.javascriptDialogOpening", tab.session)
    tab.call("Page.handleJavaScriptDialog", accept=True)
    assert tab.requests() == [tab.address, "https://example.org/a.png"]
    kinds = [one["method"] for one in tab.messages()]
    assert {"Runtime.consoleAPICalled", "Page.javascriptDialogOpening"} <= set(kinds)
    assert tab.evaluate("document.title") == "changed"
    assert [html.split()[0][:6] for html in unnamed(tab)] == ["<img", "<svg><", "<butto", "<table"]
    assert overflow(tab) > 0
    assert unreached(tab) == ["<button>never</button>"]
    tab.close()
