"""An empty choice is a choice: ``x or default`` would take it for "not given"."""

import ast
from pathlib import Path

import pytest

import elsewhere

EMPTY = ("()", "[]", "{}", "''", "0", "0.0", "b''", "None")
MODULES = sorted(Path(elsewhere.__file__).parent.rglob("*.py"))


def optional_parameters(function):
    """Return the names of the parameters of a function that may be None."""
    found = set()
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.annotation is not None and "None" in ast.unparse(argument.annotation):
            found.add(argument.arg)
    return found


def replaced_by_or(source):
    """Return line and text of each ``parameter or default`` whose default is not empty itself."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = optional_parameters(function)
        for node in ast.walk(function):
            if not (isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)):
                continue
            first, last = node.values[0], node.values[-1]
            if isinstance(first, ast.Name) and first.id in names:
                if isinstance(last, ast.Compare | ast.BoolOp) or ast.unparse(last) in EMPTY:
                    continue
                found.append((node.lineno, ast.unparse(node)))
    return found


def test_the_search_finds_what_it_is_for():
    source = """
def stream(portions: Portions | None = None, layers: list[str] | None = None) -> None:
    portions = portions or Portions.cut(design)
    for layer in layers or ():
        pass
"""
    assert replaced_by_or(source) == [(3, "portions or Portions.cut(design)")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_empty_choice_is_taken_for_none(path):
    assert not replaced_by_or(path.read_text())
