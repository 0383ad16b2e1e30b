"""Options from a file: a table for each command, and the command line wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel

import patchc


@pytest.fixture
def work(patched: PatchedModel, monkeypatch: pytest.MonkeyPatch) -> PatchedModel:
    monkeypatch.chdir(patched.patch.parent)
    return patched


def write(text: str) -> Path:
    path = Path("patchc.toml")
    path.write_text(text)
    return path


def test_options_of_several_commands(work: PatchedModel) -> None:
    config = write(
        '[apply]\nout = "copy"\njson = true\nmax_memory = "200 MB"\nthreads = 1\n'
        "[revert]\nin_place = true\nmax_memory = 300_000_000\n"
    )
    code, out, err = run("apply", work.patch, work.base, "--config", config)
    assert (code, err) == (0, "")
    assert json.loads(out)["out"] == "copy"
    code, out, err = run("revert", work.patch, "copy", "--config", config)
    assert (code, err) == (0, "")
    assert "in place" in out


def test_the_command_line_wins(work: PatchedModel) -> None:
    config = write('[diff]\nout = "x.patchc"\nweights_only = true\ncodec = "rice"\nquiet = true\n')
    given = ("diff", work.base, work.tuned, "--config", config, "-o", "y.patchc")
    assert run(*given) == (0, "", "")
    assert Path("y.patchc").exists()
    assert not Path("x.patchc").exists()
    code, out, err = run(*given[:-1], "z.patchc", "-v")
    assert code == 0
    assert "diff begins" in err
    assert "wrote z.patchc" in out


def test_lists_are_for_options_that_may_be_repeated(
    work: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}
    monkeypatch.setattr(patchc, "build", lambda *_, **options: given.update(options) or 1 / 0)
    config = write(
        '[build]\nout = "x.patchc"\ntuned = ["a", "b"]\nrecipe = "dare"\ninclude = ["mlp"]\n'
        "density = 0.25\nrescale = false\nseed = 7\n"
    )
    with pytest.raises(ZeroDivisionError):
        run("build", work.base, "--config", config)
    assert given["tuned"] == [Path("a"), Path("b")]
    recipe = given["recipe"]
    assert (recipe.density, recipe.rescale, recipe.seed) == (0.25, False, 7)
    assert recipe.include == ("mlp",)
    with pytest.raises(ZeroDivisionError):  # one on the command line is all there is
        run("build", work.base, "--config", config, "--tuned", "c", "--rescale")
    assert given["tuned"] == [Path("c")]
    assert given["recipe"].rescale is True


def test_an_option_whose_name_is_not_its_parameters(
    work: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}
    monkeypatch.setattr(patchc, "derive", lambda *_, **options: given.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("derive", work.base, "--config", write('[derive]\nfor = "safepatching"\nout = "x"\n'))
    assert given["recipe"] == patchc.Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[verify]\nthread = 1\n", "[verify] thread is not an option of verify; did you mean thr"),
        ("[verify]\nmax-memory = 1\n", "max-memory is not an option of verify; did you mean max_"),
        ("[verify]\nzebra = 1\n", "[verify] zebra is not an option of verify; see `patchc verify "),
        ("[verify]\nhelp = true\n", "[verify] help is not an option of verify"),
        ("[verify]\nconfig = 'x'\n", "[verify] config is not an option of verify"),
        ("[verify]\npatch = 'x'\n", "[verify] patch is an argument; give it on the command line"),
        ("[verify]\njson = 'yes'\n", "[verify] json is 'yes'; write true or false"),
        ("[verify]\nthreads = true\n", "[verify] threads is True; write one text or number"),
        ("[verify]\nthreads = [1]\n", "[verify] threads is [1]; write one text or number"),
        ("[verify]\nthreads = 'many'\n", "[verify] threads: "),
        ("[verify]\nthreads = 0\n", "[verify] threads: "),
        ("[verify]\nthreads = 2025-01-01\n", "verify.threads is datetime.date(2025, 1, 1); "),
        ("[verify]\nmax_memory = 'lots'\n", "[verify] max_memory: 'lots' is not a size"),
        ("[build]\ntuned = 'a'\n", None),
        ("threads = 1\n", "'threads' is no command; a file has a table for each command"),
        ("[verfy]\nthreads = 1\n", "'verfy' is no command; a file has a table for each command, "
         "such as [verify]"),
        ("verify = 1\n", "verify is not a table; write [verify]"),
        ("[verify\n", "not valid TOML ("),
        ("[verify]\nthreads = 1\nthreads = 1\n", "not valid TOML ("),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_place(
    work: PatchedModel, text: str, message: str | None
) -> None:
    code, out, err = run("verify", work.patch, "--config", write(text))
    if message is None:  # another command's table is not looked into
        assert (code, err) == (0, "")
        return
    assert (code, out) == (2, "")
    assert err.startswith("patchc: error: config patchc.toml: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_text_in_place_of_a_list(work: PatchedModel) -> None:
    config = write("[build]\ntuned = 'a'\n")
    code, _, err = run("build", work.base, "--config", config, "-o", "x")
    assert code == 2
    assert "[build] tuned is 'a'; write a list of texts or numbers" in err


def test_a_file_that_cannot_be_read(work: PatchedModel) -> None:
    for name, reason in (("nowhere.toml", "no such file"), (".", "it is a folder")):
        code, _, err = run("verify", work.patch, "--config", name)
        assert code == 2
        assert f"config {name}: cannot read: {reason}" in err
    for content in (b"[verify]\n# \xe9\n", "[verify]\n".encode("utf-16")):
        Path("other.toml").write_bytes(content)
        code, _, err = run("verify", work.patch, "--config", "other.toml")
        assert code == 2
        assert "config other.toml: not UTF-8 text; save the file as UTF-8" in err


def test_a_file_that_windows_wrote(work: PatchedModel) -> None:
    Path("windows.toml").write_bytes(b"\xef\xbb\xbf[verify]\r\nquiet = true\r\n")
    assert run("verify", work.patch, "--config", "windows.toml") == (0, "", "")


def test_verbose_and_quiet_in_one_file(work: PatchedModel) -> None:
    config = write("[verify]\nverbose = true\nquiet = true\n")
    assert run("verify", work.patch, "--config", config)[0] == 2
    assert run("verify", work.patch, "--config", config, "-q") == (0, "", "")
