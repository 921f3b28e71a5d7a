"""The letters of shapes: those of annotations, docstrings and comments stand in the one table of them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import nmt

_ROOT = Path(nmt.__file__).parent
_TABLE = _ROOT.parent / "docs" / "architecture.md"
_KINDS = re.compile(r"(Float|BFloat|Int|UInt|Bool|Num|Shaped|Inexact|Complex)\d*")
# Shapes in prose: [B,S,M], [G,N,...], [X*R], [] aside.
_IN_PROSE = re.compile(r"\[((?:[A-Z]|\.\.\.)(?:[,*/+-](?:[A-Z]|\d+|\.\.\.))*)\]")


def read_table(page: str) -> set[str]:
    """Return the letters of the table below `**Letters.**`."""
    table = page.partition("**Letters.**")[2].partition("\n\n")[2].partition("\n\n")[0]
    cells = [cell.strip() for row in table.splitlines()[2:] for cell in row.strip("|").split("|")]
    named = [letter for cell in cells for letter in re.findall(r"^[A-Z](?:, [A-Z])*$", cell)]
    letters = [letter for group in named for letter in group.split(", ")]
    assert len(letters) == len(set(letters))
    return set(letters)


def annotated_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names of dimensions in annotations, with their lines; anonymous ones and numbers left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and isinstance(node.value, ast.Name):
            shape = node.slice.elts[-1]
            if _KINDS.fullmatch(node.value.id) and isinstance(shape, ast.Constant) and isinstance(shape.value, str):
                told = re.sub(r"\{[^}]*\}|\.\.\.", "", shape.value)
                yield from ((node.lineno, name) for name in re.findall(r"[A-Za-z]\w*", told) if name != "any")


def written_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the letters of shapes in comments and docstrings, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            for shape in _IN_PROSE.findall(token.string):
                yield from ((token.start[0], letter) for letter in re.findall("[A-Z]", shape))


def test_letters_of_shapes_are_those_of_the_table() -> None:
    letters = read_table(_TABLE.read_text())
    number, unknown = 0, []
    for path in sorted(_ROOT.rglob("*.py")):
        source = path.read_text()
        for line, name in [*annotated_names(ast.parse(source)), *written_names(source)]:
            number += 1
            if name not in letters:
                unknown.append(f"{path.relative_to(_ROOT)}:{line}: {name}")
    assert number > 500
    assert unknown == []


def test_the_checks_themselves_find_what_they_look_for() -> None:
    page = (
        "**Letters.** One.\n\n| letter | it | | letter | it |\n|---|\n| B | rows | | I, O | in and out |\n\n| Z | no |"
    )
    assert read_table(page) == {"B", "I", "O"}
    code = 'x: Float32[Array, "#B *any T*W {n} _ ... 3"] | list[str]\ny: Int[np.ndarray, " k"]\nz: dict[str, "Q"]'
    assert sorted(annotated_names(ast.parse(code))) == [(1, "B"), (1, "T"), (1, "W"), (2, "k")]
    text = 'def f():\n    """Return [B,X*R] and [], not [a] or [HERE]."""\n    return x[A]  # [...,E]\n'
    assert list(written_names(text)) == [(2, "B"), (2, "X"), (2, "R"), (3, "E")]
