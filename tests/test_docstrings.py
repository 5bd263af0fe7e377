"""The rules of docstrings: whole sentences, and in public code every argument."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.sources import ROOT

PACKAGES = ("medformer", "client", "server", "simulations", "tests")
FRAGMENTS = ("Of", "What", "Whether", "Where", "Whose", "Which")
"""First words of a docstring that begins in the middle of a sentence."""
PUBLIC = (
    "medformer/model.py",
    "medformer/library",
    "client/guard.py",
    "client/round.py",
    "client/privacy",
    "server/run/strategy.py",
)
"""The library, the guard, the mathematics of privacy and the strategies."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*places: str) -> Iterator[Path]:
    for place in places:
        path = ROOT / place
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every docstring, those of attributes included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", [])
        for first in body if isinstance(body, list) else []:  # a lambda's body is one expression
            value = getattr(first, "value", None) if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield first.lineno, value.value


@pytest.mark.parametrize("package", PACKAGES)
def test_no_docstring_begins_in_the_middle_of_a_sentence(package: str):
    """A docstring is a sentence with a verb; an attribute's text names its noun."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.split(chr(10))[0]}"
        for path in sources(package)
        for line, text in docstrings(ast.parse(path.read_text()))
        if text.split(maxsplit=1)[:1] and text.split(maxsplit=1)[0].rstrip(",:") in FRAGMENTS
    ]
    assert not found, "\n".join(found)


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Yield the module's functions and the methods of its classes that have public names."""
    for node in tree.body:
        holders = [node] if not isinstance(node, ast.ClassDef) else node.body
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for one in holders:
            if isinstance(one, Function) and not one.name.startswith("_"):
                yield one


def missing(function: Function) -> list[str]:
    """Return the sections that a public function's docstring lacks."""
    text = ast.get_docstring(function) or ""
    decorators = {ast.unparse(d).split("(")[0] for d in function.decorator_list}
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if named and named[0].arg in ("self", "cls"):
        named = named[1:]
    lacking = []
    if named and "Args:" not in text:
        lacking.append("Args")
    returned = ast.unparse(function.returns) if function.returns else "None"
    speaks = text.startswith(("Return ", "Yield ", "Tell "))
    silent = decorators & {"property", "cached_property", "overload", "override"}
    if returned not in ("None", "NoReturn") and not (silent or speaks or "Returns:" in text
                                                     or "Yields:" in text):  # fmt: skip
        lacking.append("Returns")
    raised = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Raise)
        and node.exc is not None
        and ast.unparse(node.exc) != "NotImplementedError"  # an interface, not an error
    ]
    if raised and "Raises:" not in text and "overload" not in decorators:
        lacking.append("Raises")
    return lacking


def test_public_functions_name_arguments_results_and_errors():
    """Callers of the library and auditors need not read a body to know them."""
    found = []
    for path in sources(*PUBLIC):
        for function in public_functions(ast.parse(path.read_text())):
            if lacking := missing(function):
                place = f"{path.relative_to(ROOT)}:{function.lineno}"
                found.append(f"{place}: {function.name} lacks {', '.join(lacking)}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ('def f(a: int) -> None:\n    """Do."""', ["Args"]),
        ('def f() -> int:\n    """Do."""', ["Returns"]),
        ('def f() -> int:\n    """Return one."""', []),
        ('def f() -> None:\n    """Do."""\n    raise ValueError("no")', ["Raises"]),
        ('def f(a: int) -> int:\n    """Do.\n\n    Args:\n        a: A.\n    """', ["Returns"]),
    ],
)
def test_each_gap_would_be_seen(source: str, lacking: list[str]):
    """The test before this one is not blind."""
    function = ast.parse(source).body[0]
    assert isinstance(function, Function)
    assert missing(function) == lacking
