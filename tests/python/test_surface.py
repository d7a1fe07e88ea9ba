"""The surface of the package: what is there is said alike in the stub, in the twins and in the docs."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from towline import _core

STUB = Path(_core.__file__ or "").with_name("_core.pyi")


def test_the_stub_names_what_the_native_half_has_and_nothing_else() -> None:
    in_stub: dict[str, type] = {
        one.name: ast.ClassDef if isinstance(one, ast.ClassDef) else ast.FunctionDef
        for one in ast.parse(STUB.read_text()).body
        if isinstance(one, (ast.ClassDef, ast.FunctionDef))
    }
    in_module: dict[str, type] = {
        name: ast.ClassDef if inspect.isclass(one) else ast.FunctionDef
        for name, one in vars(_core).items()
        if not name.startswith("__")
    }
    assert in_stub == in_module and len(in_stub) > 10
