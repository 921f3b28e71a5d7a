"""The matrix as a web page of one file that needs no other: heat map, scores, sample translations, signatures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import groupby
from typing import Any

from nmt.config import DecodeConfig
from nmt.evaluate.heat import background, foreground
from nmt.evaluate.metrics import Cell
from nmt.evaluate.report import directions, languages, left_out_lines, signatures
from nmt.evaluate.results import DirectionResult, Matrix
from nmt.evaluate.samples import SampleTranslation
from nmt.languages import Direction, get

# The browser is told to load nothing at all, so that not even a hypothesis could make it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SHARES = ("empty", "copied", "loops", "changed digits")
_HEADING = ("direction", "BLEU", "chrF++", "sentences", "length ratio", *_SHARES, "sentences/s")


def render_page(matrix: Matrix, samples: Sequence[SampleTranslation]) -> str:
    """Return the page as HTML.

    Args:
      matrix: at least one result.
      samples: sample translations, those of a direction one after the other.
    """
    title = escape(f"{matrix.recipe}, step {matrix.step}")
    style = resources.files("nmt.evaluate").joinpath("page.css").read_text(encoding="utf-8")
    body = [_header(matrix), _heat_map(matrix), _list(matrix), _samples(samples), _method(matrix)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{''.join(body)}</body>\n</html>\n"
    )


def _header(matrix: Matrix) -> str:
    sentences = sum(cell.sentences for cell in matrix.cells)
    date = matrix.date.replace("T", " ").replace("+00:00", " UTC")
    cards = "".join(
        f'<div class="card"><span class="soft">mean {name}</span><b>{average.bleu:.1f}</b>'
        f"BLEU, {average.chrf:.1f} chrF++ <span class='soft'>({directions(average.directions)})</span></div>\n"
        for name, average in matrix.averages.items()
    )
    return (
        f"<header>\n<h1>{escape(matrix.recipe)}</h1>\n"
        f'<p class="soft">step {matrix.step} · {escape(matrix.test_set)} · {sentences} sentences in '
        f"{directions(len(matrix.results))} · {escape(date)}</p>\n"
        f'<div class="cards">\n{cards}</div>\n</header>\n'
    )


def _heat_map(matrix: Matrix) -> str:
    sources, targets = languages(matrix)
    cells = {cell.direction: cell for cell in matrix.cells}
    heading = "".join(f'<th scope="col" title="{_name(target)}">{escape(target)}</th>' for target in targets)
    rows = "".join(
        f'<tr><th scope="row">{_name(source)}</th>'
        + "".join(_heat_cell(cells.get(Direction(source, target))) for target in targets)
        + "</tr>\n"
        for source in sources
    )
    return (
        f'<h2>BLEU from (rows) into (columns)</h2>\n<div class="scroll"><table class="heat">\n'
        f"<thead><tr><th></th>{heading}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def _heat_cell(cell: Cell | None) -> str:
    if cell is None:
        return '<td class="none">·</td>'
    colours = f"background:{background(cell.bleu)};color:{foreground(cell.bleu)}"
    hint = f"{cell.direction}: BLEU {cell.bleu:.1f}, chrF++ {cell.chrf:.1f}, {cell.sentences} sentences"
    return f'<td style="{colours}" title="{escape(hint)}">{cell.bleu:.1f}</td>'


def _list(matrix: Matrix) -> str:
    heading = "".join(f'<th scope="col">{name}</th>' for name in _HEADING)
    rows = [_row(_result_fields(result)) for result in matrix.results]
    for name, average in matrix.averages.items():
        fields = [f"mean {name}", f"{average.bleu:.1f}", f"{average.chrf:.1f}"]
        rows.append(_row(fields + [""] * (len(_HEADING) - len(fields)), "mean"))
    return (
        f'<h2>Directions</h2>\n<div class="scroll"><table class="list">\n<thead><tr>{heading}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody>\n</table></div>\n"
    )


def _result_fields(result: DirectionResult) -> list[str]:
    cell = result.cell
    scores = [f"{cell.bleu:.1f}", f"{cell.chrf:.1f}", str(cell.sentences), f"{cell.length_ratio:.2f}"]
    shares = [f"{share:.1%}" for share in (cell.empty, cell.copied, cell.loops, cell.changed_digits)]
    return [str(cell.direction), *scores, *shares, f"{result.sentences_per_second:.1f}"]


def _row(fields: Iterable[str], kind: str = "") -> str:
    return f'<tr class="{kind}">' + "".join(f"<td>{escape(text)}</td>" for text in fields) + "</tr>\n"


def _samples(samples: Sequence[SampleTranslation]) -> str:
    if not samples:
        return ""
    groups = [(direction, list(group)) for direction, group in groupby(samples, lambda sample: sample.direction)]
    blocks = "".join(
        f"<details{' open' if number == 0 else ''}>\n<summary>{_name(direction.source)} → {_name(direction.target)}"
        f"</summary>\n{''.join(map(_sample, group))}</details>\n"
        for number, (direction, group) in enumerate(groups)
    )
    note = "Sentences that stand at even distances in the test set, whatever became of them."
    return f'<h2>Sample translations</h2>\n<p class="soft">{note}</p>\n{blocks}'


def _sample(sample: SampleTranslation) -> str:
    (source, target), hypothesis = sample.direction, sample.hypothesis or "(nothing)"
    lines = [("source", source, sample.source, ""), ("reference", target, sample.reference, "")]
    lines.append(("translation", target, hypothesis, "output"))
    return (
        "<dl>"
        + "".join(
            f'<dt>{label}</dt><dd class="{kind}" lang="{escape(language)}" dir="auto">{escape(text)}</dd>\n'
            for label, language, text, kind in lines
        )
        + "</dl>\n"
    )


def _method(matrix: Matrix) -> str:
    decode = ", ".join(_decode_options(matrix.results[0].source.decode))
    facts = [f"<p>{label}: <code>{escape(text)}</code></p>\n" for label, text in signatures(matrix)]
    facts.append(f"<p>Decoding: <code>{escape(decode)}</code></p>\n")
    facts += [f"<p>Left out: {escape(line)}</p>\n" for line in left_out_lines(matrix)]
    return f"<h2>How it was measured</h2>\n{''.join(facts)}"


def _decode_options(decode: Mapping[str, Any]) -> Iterator[str]:
    """Yield the beam, how lengths are weighed, and every other option that is not the default."""
    defaults = DecodeConfig().model_dump(mode="json")
    for key, value in decode.items():
        if key in ("beam", "normalisation", "length_penalty") or value != defaults.get(key):
            yield f"{key} {value}"


def _name(code: str) -> str:
    """Return the English name of a language, escaped."""
    return escape(get(code).english)
