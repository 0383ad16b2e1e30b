"""What patchc uses of Numba that Numba does not promise to keep."""

from __future__ import annotations

import inspect

import numba
import numpy as np
import pytest
from numba.core import caching, codegen, compiler, registry, serialize
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

TRIED = [(0, 61), (0, 68)]
"""The oldest and the newest minor version that all tests passed with."""


def test_numba_has_what_patchc_uses_of_its_internals() -> None:
    version = tuple(int(number) for number in numba.__version__.split(".")[:2])
    assert TRIED[0] <= version <= TRIED[1], (
        f"numba {numba.__version__} is not between the versions that patchc was tried with; run "
        "all tests with it, read patchc/jit.py and patchc/loop_cache.py against its sources, and "
        "then widen TRIED here and the requirement in pyproject.toml"
    )
    expected = {
        caching.NullCache: ["load_overload", "save_overload", "cache_path", "flush"],
        compiler.CompileResult: ["_reduce", "_rebuild", "lifted", "library"],
        codegen.CodeLibrary: ["has_dynamic_globals", "codegen"],
        Dispatcher: ["stats", "get_call_template"],
    }
    for kind, names in expected.items():
        missing = [name for name in names if not hasattr(kind, name)]
        assert not missing, f"numba {numba.__version__}: {kind.__name__} lacks {missing}"
    assert isinstance(numba.njit(_first_of_new)._cache, caching.NullCache)
    assert "target_context" in inspect.signature(caching.Cache.load_overload).parameters
    assert hasattr(registry.cpu_target.typing_context, "resolve_value_type")
    assert registry.cpu_target.target_context.codegen().magic_tuple()
    assert serialize.dumps([1])


def test_only_loops_that_count_references_can_make_arrays() -> None:
    assert numba.njit(_first_of_new)(3) == 0
    with pytest.raises(NumbaError, match="returning of array"):
        numba.njit(_nrt=False)(_first_of_new)(3)


def _first_of_new(count):
    return np.zeros(count)[0]
