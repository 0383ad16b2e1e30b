"""File names by which a loader, an interpreter or a tool runs what a file holds."""

from __future__ import annotations

import re

SUFFIXES = {
    "Python code": ".py .pyw .pyc .pyo .pyd .pyx .pyz .pex .egg .whl .ipynb ._pth",
    "a script": (
        ".sh .bash .zsh .fish .csh .ksh .bat .cmd .ps1 .psm1 .psd1 .vbs .vbe .wsf .wsh .hta .js "
        ".mjs .cjs .jse .ts .pl .pm .rb .lua .tcl .php .jl .r .groovy .awk .command .applescript "
        ".scpt .desktop .lnk .url .reg .inf .cpl .msc .service .ipy .nix .scala .sc .clj .ex .exs "
        ".erl .hs .swift .kt .kts .dart .nim .el .vim .vb .sct .wsc .chm .terminal .code-workspace"
    ),
    "native code": (
        ".so .dll .dylib .exe .com .scr .msi .sys .o .obj .a .lib .ko .node .wasm .jar .war .class "
        ".dex .ptx .cubin .fatbin .hsaco .metallib .engine .plan .trt .llamafile .appimage .deb "
        ".rpm .pkg .dmg .apk"
    ),
    "source of native code": (
        ".c .cc .cpp .cxx .cu .cuh .h .hh .hpp .hip .metal .m .mm .rs .go .java .cs .f .f90"
    ),
    "a pickle": (
        ".bin .pt .pt2 .ptl .pth .th .t7 .ckpt .pkl .pickle .cpickle .joblib .dill .sav .dpr .nemo "
        ".mar"
    ),
    "objects of R": ".rds .rda .rdata",
    "an archive": ".tar .tgz .tbz .tbz2 .txz .zip",
    "a Keras or TensorFlow model": ".keras .h5 .hdf5 .pb .pbtxt",
    "a build file": ".mk .cmake .gradle .gemspec .csproj .vcxproj .bazel .bzl",
}
NAMES = {
    "a build file": (
        "makefile gnumakefile bsdmakefile cmakelists.txt dockerfile containerfile compose.yaml "
        "compose.yml docker-compose.yaml docker-compose.yml justfile rakefile gemfile jenkinsfile "
        "vagrantfile procfile pipfile setup.cfg pyproject.toml tox.ini pytest.ini package.json "
        "environment.yml environment.yaml conda.yaml python_env.yaml meson.build sconstruct "
        "sconscript wscript snakefile taskfile.yml taskfile.yaml earthfile tiltfile brewfile "
        "mlproject mlmodel dvc.yaml cog.yaml cargo.toml build.xml pom.xml deno.json lefthook.yml"
    ),
    "a tool's settings, which run commands": (
        ".gitmodules .gitconfig .gitlab-ci.yml .travis.yml azure-pipelines.yml .npmrc .envrc .env "
        ".pre-commit-config.yaml .bashrc .bash_profile .bash_login .bash_logout .profile .zshrc "
        ".zshenv .zprofile .zlogin .kshrc .cshrc .tcshrc .bash_aliases .inputrc .vimrc .nvimrc "
        ".exrc .gdbinit .lldbinit .pdbrc .irbrc .pryrc .psqlrc .sqliterc .rprofile .octaverc .ghci "
        "pip.conf pyvenv.cfg .yarnrc .yarnrc.yml .mise.toml mise.toml .pylintrc pylintrc mypy.ini "
        ".mypy.ini .coveragerc .flake8 .mcp.json mcp.json entry_points.txt crontab"
    ),
}
FOLDERS = {
    "in a folder of hooks": "hooks .githooks .husky",
    "in a tool's folder, whose files run commands": (
        ".git .hg .svn .github .gitlab .circleci .vscode .idea .devcontainer .cargo .jupyter "
        ".ipython .claude .codex .cursor .gemini .windsurf .zed .mvn .yarn .config .ssh"
    ),
}
_COMPRESSED = re.compile(r"(\.(gz|bz2|xz|lzma|zst|z|lz4))+$")
_VERSIONED = re.compile(r"\.so(\.\d+)+$")
_WITH_MORE = re.compile(r"(make|docker|container)file\.")
_PACKAGES = re.compile(r"requirements[^/]*\.(txt|in)$")


def _by_word(table: dict[str, str]) -> dict[str, str]:
    return {word: reason for reason, words in table.items() for word in words.split()}


_BY_SUFFIX, _BY_NAME, _BY_FOLDER = map(_by_word, (SUFFIXES, NAMES, FOLDERS))


def reason_by_name(name: str) -> str | None:
    """Say what a file is that is run by its name; None for others.

    Case, compression and what Windows drops from a name make no difference.
    """
    *folders, last = (as_windows_sees(part) for part in name.casefold().split("/"))
    for folder in folders:
        if folder in _BY_FOLDER:
            return _BY_FOLDER[folder]
    plain = _COMPRESSED.sub("", last)
    if _VERSIONED.search(plain):
        return _BY_SUFFIX[".so"]
    if _PACKAGES.match(plain):
        return "a list of packages, which are run where they are installed"
    if _WITH_MORE.match(plain):
        return _BY_NAME["makefile"]
    return _BY_NAME.get(plain) or _BY_SUFFIX.get("".join(plain.rpartition(".")[1:]))


def as_windows_sees(part: str) -> str:
    """A name without what Windows drops: final dots and spaces, and what follows a colon."""
    return part.partition(":")[0].rstrip(". ") or part
