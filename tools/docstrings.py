"""The share of functions that explain their parameters, and docstrings too short to say anything."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHORTEST = 4
"""Words a docstring has at least."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module


@dataclass(frozen=True)
class Docstrings:
    """What was counted over a set of source files."""

    functions: int
    """Public functions of two or more parameters, `self` and `cls` left out."""
    documented: int
    """Those of them whose parameters are explained: by `Args:`, or by the help of command-line options."""
    short: tuple[str, ...]
    """Where a docstring is shorter than it may be, as `path:line`."""


def count(paths: Iterable[Path], root: Path) -> Docstrings:
    """Count over source files.

    Args:
        paths: Python files.
        root: folder that reported paths are relative to.
    """
    functions, documented, short = 0, 0, []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function, owner in _public(tree):
            if len(_parameters(function)) >= 2:
                functions += 1
                documented += _explained(function, owner)
        short += [f"{path.resolve().relative_to(root.resolve())}:{line}" for line in _short(tree)]
    return Docstrings(functions, documented, tuple(short))


def _public(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    owner = scope if isinstance(scope, ast.ClassDef) else None
    for node in scope.body:
        if isinstance(node, Function) and (node.name == "__init__" or not node.name.startswith("_")):
            yield node, owner
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node)


def _parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in named if argument.arg not in ("self", "cls")]


def _explained(function: Function, owner: ast.ClassDef | None) -> bool:
    texts = [ast.get_docstring(function) or ""]
    if owner is not None and function.name == "__init__":
        texts.append(ast.get_docstring(owner) or "")
    options = [ast.unparse(argument.annotation) for argument in _parameters(function) if argument.annotation]
    by_help = len(options) == len(_parameters(function)) and all("typer." in option for option in options)
    return by_help or any("Args:\n" in text for text in texts)


def _short(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text is not None and len(text.split()) < SHORTEST and not _private(node):
                yield node.body[0].lineno
        if isinstance(node, ast.ClassDef | ast.Module):
            yield from (line for line, text in _attributes(node) if len(text.split()) < SHORTEST)


def _private(node: Documented) -> bool:
    name = getattr(node, "name", "")
    return name.startswith("_") and not name.startswith("__")


def _attributes(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    """Docstrings below assignments, with their lines."""
    for above, node in zip(scope.body, scope.body[1:], strict=False):
        if isinstance(above, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield node.lineno, value.value
