"""The words of the code: one name for one thing, names that say what is done, docstrings that begin with a subject."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nmt

_ROOT = Path(nmt.__file__).parent
_TREES = {path.relative_to(_ROOT): ast.parse(path.read_text()) for path in sorted(_ROOT.rglob("*.py"))}
_COMMANDS = Path("cli")

# Constructors are named by their source (`from_config`), so `from` is not among them.
_PREPOSITIONS = ("of", "in", "by", "at", "on", "with", "under")
_RIDDLE = re.compile(r"\s*((Return|Returns|Yield|Yields) )?(what|whose)\b", re.IGNORECASE)
_QUOTED_SHAPE = re.compile(r"\[[^\]\s]*`[^\]\s]*,[^\]\s]*\]")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _is_public_definition(node: ast.stmt) -> bool:
    return isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")


def _is_command(path: Path, node: ast.stmt) -> bool:
    """Return whether a function is the entry of a program, or is registered as a command of one."""
    if not isinstance(node, Function):
        return False
    decorators = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    registered = any(isinstance(one, ast.Attribute) and one.attr in ("command", "callback") for one in decorators)
    return node.name == "main" or (_COMMANDS in path.parents and registered)


def _nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in _TREES.items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kinds))


def duplicates(trees: dict[Path, ast.Module]) -> dict[str, list[str]]:
    """Return the public top-level names that are defined more than once, with their modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if _is_public_definition(node) and not _is_command(path, node):
                assert isinstance(node, Function | ast.ClassDef)
                found[node.name].append(str(path))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def is_named_by_preposition(name: str) -> bool:
    """Return whether a function's name begins with a preposition or ends with `of`."""
    words = name.strip("_").split("_")
    return words[0] in _PREPOSITIONS or words[-1] == "of"


def test_a_public_name_stands_for_one_thing() -> None:
    assert duplicates(_TREES) == {}


def test_functions_are_named_by_what_they_do() -> None:
    functions = [(path, node) for path, node in _nodes(ast.FunctionDef, ast.AsyncFunctionDef)]
    assert len(functions) > 1000
    assert [f"{path}: {node.name}" for path, node in functions if is_named_by_preposition(node.name)] == []


def test_docstrings_begin_with_their_subject() -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [(path, ast.get_docstring(node)) for path, node in _nodes(*kinds)]
    riddles = [f"{path}: {text.splitlines()[0]}" for path, text in documented if text and _RIDDLE.match(text)]
    assert riddles == []


def test_shapes_have_no_stray_back_quotes() -> None:
    found = [f"{path}: {line.strip()}" for path in _TREES for line in _quoted_shapes((_ROOT / path).read_text())]
    assert found == []


def _quoted_shapes(text: str) -> list[str]:
    return [line for line in text.splitlines() if _QUOTED_SHAPE.search(line)]


def test_the_checks_themselves_find_what_they_look_for() -> None:
    twice = {Path("a.py"): ast.parse("class One: ...\ndef main(): ..."), Path("b.py"): ast.parse("def One(): ...")}
    command = ast.parse("@app.command()\ndef One(): ...\ndef main(): ...")
    assert duplicates(twice | {Path("cli/c.py"): command}) == {"One": ["a.py", "b.py"]}
    assert duplicates(twice | {Path("d.py"): command}) == {"One": ["a.py", "b.py", "d.py"]}
    named = [
        is_named_by_preposition(name) for name in ("of_batch", "_in_turn", "at", "shape_of", "from_config", "order")
    ]
    assert named == [True, True, True, True, False, False]
    opened = ("What it is.", "Return what is", "Yield whose", "Whose it is.", "Return the rows.", "Whatever it is")
    assert [bool(_RIDDLE.match(text)) for text in opened] == [True, True, True, True, False, False]
    lines = ["[`G,N,M]", "[G,N`,M]", "[G,N,M]", "[`a`, `b`]", "take [B,T] of `rows`"]
    assert _quoted_shapes("\n".join(lines)) == lines[:2]
