"""The matrix as a table of text, and in Markdown.

Up to 12 directions are listed; more are shown as a grid of sources and targets, and with too many languages for a grid
each language gets one line.
"""

from collections.abc import Sequence
from typing import NamedTuple

from nmt.evaluate.results import Average, Matrix
from nmt.languages import Direction

LISTED_DIRECTIONS = 12
GRID_LANGUAGES = 12
NAMED_TARGETS = 12  # with more targets, the commonest signature's label says "the others"
FAULTY_DIRECTIONS = 6  # most directions that are named for their loops or changed digits
NONE = "·"


class Sheet(NamedTuple):
    """A table of text."""

    heading: list[str]
    rows: list[list[str]]
    averages: list[list[str]]  # further rows; empty where the columns would not fit them
    heat: bool = False  # whether the rows are BLEU to be coloured


def render_markdown(matrix: Matrix) -> str:
    """Return the matrix as a Markdown table, followed by the signatures."""
    heading, rows, averages, _ = sheet(matrix)
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows, *[_bold(row) for row in averages]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [] if averages else average_lines(matrix)
    notes += fault_lines(matrix)
    notes += [f"Left out: {line}" for line in left_out_lines(matrix)]
    notes += [f"{label}: `{signature}`" for label, signature in signatures(matrix)]
    return table + "\n\n" + "  \n".join(notes) + "\n"


def sheet(matrix: Matrix) -> Sheet:
    """Return the table that suits the number of directions."""
    if len(matrix.results) <= LISTED_DIRECTIONS:
        return _list(matrix)
    sources, targets = languages(matrix)
    if max(len(sources), len(targets)) <= GRID_LANGUAGES:
        return _grid(matrix, sources, targets)
    return _list_languages(matrix, sources, targets)


def languages(matrix: Matrix) -> tuple[list[str], list[str]]:
    """Return the source and the target languages, sorted."""
    directions = [cell.direction for cell in matrix.cells]
    return sorted({direction.source for direction in directions}), sorted(
        {direction.target for direction in directions}
    )


def signatures(matrix: Matrix) -> list[tuple[str, str]]:
    """Return label and signature of each metric; if it differs between targets, one for each group of them."""
    lines: list[tuple[str, str]] = []
    for name, attribute in (("BLEU", "bleu_signature"), ("chrF++", "chrf_signature")):
        targets: dict[str, set[str]] = {}
        for cell in matrix.cells:
            targets.setdefault(getattr(cell, attribute), set()).add(cell.direction.target)
        groups = sorted(targets.items(), key=lambda item: len(item[1]))
        labels = [f"{name} into {', '.join(sorted(group))}" for _, group in groups]
        if len(groups) == 1:
            labels = [name]
        elif len(groups[-1][1]) > NAMED_TARGETS:
            labels[-1] = f"{name} into the others"
        lines += zip(labels, [signature for signature, _ in groups], strict=True)
    return lines


def left_out_lines(matrix: Matrix) -> list[str]:
    """Return one line for each reason why directions were not evaluated."""
    reasons: dict[str, list[str]] = {}
    for direction, reason in matrix.left_out.items():
        reasons.setdefault(reason, []).append(direction)
    return [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]


def fault_lines(matrix: Matrix) -> list[str]:
    """Return a line on the outputs that loop, and one on those that change digits, the worst directions first."""
    lines = []
    for name, attribute in (("loops", "loops"), ("changed digits", "changed_digits")):
        worst = sorted(matrix.cells, key=lambda cell: -getattr(cell, attribute))
        faulty = [cell for cell in worst if getattr(cell, attribute) > 0]
        if faulty:
            named = ", ".join(f"{cell.direction} {getattr(cell, attribute):.1%}" for cell in faulty[:FAULTY_DIRECTIONS])
            more = f", and {len(faulty) - FAULTY_DIRECTIONS} more" if len(faulty) > FAULTY_DIRECTIONS else ""
            lines.append(f"Outputs with {name}: {named}{more}")
    return lines


def average_lines(matrix: Matrix) -> list[str]:
    """Return one line for each average."""
    return [
        f"mean {name}: BLEU {_one(average.bleu)}, chrF++ {_one(average.chrf)} ({directions(average.directions)})"
        for name, average in matrix.averages.items()
    ]


def directions(count: int) -> str:
    """Return the number of directions in words."""
    return f"{count} direction{'' if count == 1 else 's'}"


def _list(matrix: Matrix) -> Sheet:
    rows = [
        [str(cell.direction), _one(cell.bleu), _one(cell.chrf), str(cell.sentences), f"{cell.length_ratio:.2f}"]
        for cell in matrix.cells
    ]
    averages = [[f"mean {name}", *_scores(average), "", ""] for name, average in matrix.averages.items()]
    return Sheet(["direction", "BLEU", "chrF++", "sentences", "length ratio"], rows, averages)


def _grid(matrix: Matrix, sources: Sequence[str], targets: Sequence[str]) -> Sheet:
    bleu = {cell.direction: _one(cell.bleu) for cell in matrix.cells}
    rows = [[source, *[bleu.get(Direction(source, target), NONE) for target in targets]] for source in sources]
    return Sheet(["BLEU from, into", *targets], rows, [], heat=True)


def _list_languages(matrix: Matrix, sources: Sequence[str], targets: Sequence[str]) -> Sheet:
    def mean(side: int, language: str) -> list[str]:
        return _scores(Average.compute([cell for cell in matrix.cells if cell.direction[side] == language]))

    rows = [[code, *mean(0, code), *mean(1, code)] for code in sorted({*sources, *targets})]
    return Sheet(["mean", "BLEU from it", "chrF++ from it", "BLEU into it", "chrF++ into it"], rows, [])


def _scores(average: Average | None) -> list[str]:
    return [_one(average.bleu), _one(average.chrf)] if average else [NONE, NONE]


def _one(value: float) -> str:
    return f"{value:.1f}"


def _bold(row: Sequence[str]) -> list[str]:
    return [f"**{text}**" if text else "" for text in row]
