"""The names that ``patchc`` exports, as programs, type checkers and people see them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules

import patchc
from patchc import errors


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(patchc.__file__).read_text(encoding="utf-8"))
    told = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    exported = {name: (patchc._HOMES[name], name) for name in patchc._HOMES}
    assert told == exported | {"__version__": ("patchc.version", "__version__")}
    assert len(patchc.__all__) == len(set(patchc.__all__))


def test_no_package_takes_the_name_of_a_function() -> None:
    """An import from within ``patchc.x`` would put the package in the place of ``patchc.x()``."""
    taken = {one.name for one in iter_modules(patchc.__path__)}
    assert not taken & {*patchc.__all__}


def test_every_error_class_is_exported() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    for one in classes:
        if issubclass(one, errors.PatchcError):
            assert getattr(patchc, one.__name__) is one


def test_dir_and_help_list_the_names() -> None:
    """In a fresh interpreter, where no name was used yet."""
    code = """
import pydoc
import patchc
missing = {"torch", *patchc.__all__} - set(dir(patchc))
text = pydoc.plain(pydoc.render_doc(patchc))
print(missing, [name for name in patchc._HOMES if name not in text], patchc.torch.__name__)
"""
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told == "set() [] patchc.torch\n"
