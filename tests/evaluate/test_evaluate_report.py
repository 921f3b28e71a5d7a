"""Evaluation: what people see of a matrix, in a terminal, in Markdown and in a browser; the nmt-evaluate command."""

import io
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from toy_evaluation import RECIPE, TEXT, FakeTranslator, write_set

import nmt.cli.evaluate as command
from nmt.config import save_recipe
from nmt.errors import UserError
from nmt.evaluate.heat import background, foreground
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.metrics import Cell
from nmt.evaluate.report import fault_lines, render_markdown, signatures
from nmt.evaluate.results import DirectionResult, Matrix, ResultOrigin
from nmt.evaluate.samples import SampleTranslation
from nmt.evaluate.webpage import render_page
from nmt.languages import Direction, all_languages
from nmt.recipes.scores import show_matrix
from nmt.recipes.terminal import TerminalProgress


def matrix_of(directions: Sequence[tuple[str, str]], tokenizers: dict[str, str] | None = None) -> Matrix:
    """Return a matrix whose n-th direction, from 1, has BLEU n and chrF++ 10 n."""
    results = []
    for n, direction in enumerate(itertools.starmap(Direction, directions), start=1):
        tokenizer = (tokenizers or {}).get(direction.target, "13a")
        cell = Cell(direction, 9, float(n), 10.0 * n, f"tok:{tokenizer}", "nw:2", 0.987, 0.25, 0.0, 0.0, 0.0)
        results.append(
            DirectionResult(cell, ResultOrigin(7, "", "", {"beam": 4}), "", 3.0, "2026-11-22T07:20:31+00:00")
        )
    return Matrix(epath.Path("x"), "toy <i>[b]", 7, "test", tuple(results), {"fr-en": "the model does not know fr"})


def pairs_of(count: int) -> list[tuple[str, str]]:
    codes = [language.code for language in all_languages()[: count - 1]] + ["en"]
    return list(itertools.permutations(codes, 2))


def printed(matrix: Matrix, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_matrix(matrix, console)
    return console.file.getvalue()


# Tables


def test_a_few_directions_are_a_list_with_averages_below() -> None:
    assert render_markdown(matrix_of([("de", "en"), ("en", "de"), ("es", "en")])) == (
        "| direction | BLEU | chrF++ | sentences | length ratio |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| de-en | 1.0 | 10.0 | 9 | 0.99 |\n"
        "| en-de | 2.0 | 20.0 | 9 | 0.99 |\n"
        "| es-en | 3.0 | 30.0 | 9 | 0.99 |\n"
        "| **mean into English** | **2.0** | **20.0** |  |  |\n"
        "| **mean out of English** | **2.0** | **20.0** |  |  |\n"
        "| **mean overall** | **2.0** | **20.0** |  |  |\n\n"
        "Left out: fr-en (the model does not know fr)  \nBLEU: `tok:13a`  \nchrF++: `nw:2`\n"
    )


def test_directions_are_named_for_their_loops_and_changed_digits() -> None:
    matrix = matrix_of([("en", code) for code in ("de", "es", "pt", "fr", "it", "nl", "sv", "da")])
    assert fault_lines(matrix) == []
    results = [
        replace(result, cell=replace(result.cell, loops=n / 100, changed_digits=0.25 * (n == 3)))
        for n, result in enumerate(matrix.results)
    ]
    lines = fault_lines(replace(matrix, results=tuple(results)))
    worst = "en-da 7.0%, en-sv 6.0%, en-nl 5.0%, en-it 4.0%, en-fr 3.0%, en-pt 2.0%, and 1 more"
    assert lines == [f"Outputs with loops: {worst}", "Outputs with changed digits: en-fr 25.0%"]
    assert all(line in render_markdown(replace(matrix, results=tuple(results))) for line in lines)
    assert all(line in printed(replace(matrix, results=tuple(results))) for line in lines)
    assert "<td>7.0%</td><td>0.0%</td>" in render_page(replace(matrix, results=tuple(results)), [])


def test_more_directions_are_a_grid() -> None:
    matrix = matrix_of([*itertools.permutations(["de", "en", "es", "pt"], 2), ("it", "en")])
    rows = [line.strip("| ").split(" | ") for line in render_markdown(matrix).splitlines() if line.startswith("|")]
    assert rows[0] == ["BLEU from, into", "de", "en", "es", "pt"]
    assert rows[2:] == [
        ["de", "·", "1.0", "2.0", "3.0"],
        ["en", "4.0", "·", "5.0", "6.0"],
        ["es", "7.0", "8.0", "·", "9.0"],
        ["it", "·", "13.0", "·", "·"],
        ["pt", "10.0", "11.0", "12.0", "·"],
    ]
    assert "mean into English: BLEU 8.2, chrF++ 82.5 (4 directions)" in render_markdown(matrix)  # of 1, 8, 11 and 13


def test_many_languages_get_one_line_each() -> None:
    matrix = matrix_of(pairs_of(20))
    rows = [line.strip("| ").split(" | ") for line in render_markdown(matrix).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 20
    english = next(row for row in rows if row[0] == "en")
    into = [cell.bleu for cell in matrix.cells if cell.direction.target == "en"]
    from_it = [cell.bleu for cell in matrix.cells if cell.direction.source == "en"]
    assert english[1:4] == [f"{sum(from_it) / 19:.1f}", f"{sum(from_it) * 10 / 19:.1f}", f"{sum(into) / 19:.1f}"]


@pytest.mark.parametrize("count", [2, 5, 20])
def test_the_terminal_shows_what_markdown_says(count: int) -> None:
    matrix = matrix_of(pairs_of(count))
    text = printed(matrix)
    assert "toy <i>[b], step 7, test" in text
    for line in render_markdown(matrix).splitlines()[2:]:
        for field in line.replace("*", "").replace("`", "").replace("Left out", "left out").split("|"):
            assert field.strip() in text


def test_signatures_stay_whole_on_a_narrow_terminal() -> None:
    matrix = evaluate_toy(io.StringIO())
    assert matrix.cells[0].chrf_signature in printed(matrix, width=40)


def evaluate_toy(file: io.StringIO, terminal: bool = False) -> Matrix:
    """Evaluate with a display, one direction of three having been evaluated before."""
    console = Console(file=file, width=100, force_terminal=terminal, color_system=None)
    with tempfile.TemporaryDirectory() as run:
        write_set(Path(run) / "data" / "test", TEXT)
        evaluate(FakeTranslator(), run, directions=["de-en"])
        return evaluate(FakeTranslator(), run, progress=TerminalProgress(console))


def test_progress_tells_every_result_and_which_is_an_old_one() -> None:
    file = io.StringIO()
    matrix = evaluate_toy(file)
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["es-en", "de-en", "en-de"]
    assert ["as before" in line for line in lines] == [False, True, False]
    assert f"BLEU {matrix.cells[0].bleu:5.1f}" in lines[0]


def test_progress_on_a_terminal_has_a_bar_for_what_is_translated() -> None:
    file = io.StringIO()
    evaluate_toy(file, terminal=True)
    assert re.search(r"en-de ━+ 1/1 ", file.getvalue())  # the bar's last state; others may be too short to be drawn


def test_signatures_are_grouped_where_they_differ() -> None:
    same = [("de", "en"), ("en", "de")]
    assert signatures(matrix_of(same)) == [("BLEU", "tok:13a"), ("chrF++", "nw:2")]
    assert signatures(matrix_of([*same, ("en", "ja"), ("en", "th")], {"ja": "char", "th": "char"}))[:2] == [
        ("BLEU into de, en", "tok:13a"),
        ("BLEU into ja, th", "tok:char"),
    ]
    assert signatures(matrix_of([*pairs_of(20), ("en", "ja")], {"ja": "char"}))[:2] == [
        ("BLEU into ja", "tok:char"),
        ("BLEU into the others", "tok:13a"),
    ]


@given(st.floats(0, 100))
def test_every_cell_of_the_heat_map_can_be_read(bleu: float) -> None:
    def luminance(colour: str) -> float:  # WCAG 2.1, relative luminance
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted([luminance(background(bleu)), luminance(foreground(bleu))])
    assert (high + 0.05) / (low + 0.05) >= 4.4  # the best that black or white can have on every colour is about 4.6


# The page


class Page(HTMLParser):
    """The elements, attributes and texts of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_text_on_the_page_is_text_whatever_it_says() -> None:
    evil = "</dd><script>alert(1)</script><img src=x onerror='a()'>\" & <!--"
    directions = [("de", "en")]
    page = Page(
        render_page(matrix_of(directions), [SampleTranslation(Direction("de", "en"), evil, evil + "2", evil + "3")])
    )
    assert {evil, evil + "2", evil + "3"} <= set(page.texts)
    assert "toy <i>[b]" in page.texts
    assert page.tags.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert set(page.attributes).isdisjoint({"src", "href", "onerror", "srcset"})


def test_the_page_needs_no_other_file_and_says_so_to_the_browser() -> None:
    text = render_page(matrix_of(pairs_of(5)), [])
    assert "default-src 'none'; style-src 'unsafe-inline'" in Page(text).attributes["content"]
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_holds_scores_averages_signatures_and_what_was_left_out() -> None:
    matrix = matrix_of([("de", "en"), ("en", "ja")], {"ja": "char"})
    page = Page(render_page(matrix, [SampleTranslation(Direction("de", "en"), "Haus", "house", "")]))
    text = " ".join(page.texts)
    for expected in (
        "step 7 · test · 18 sentences in 2 directions · 2026-11-22 07:20:31 UTC",
        "mean into English",
        "10.0 chrF++",
        "(1 direction)",
        "25.0%",  # empty outputs
        "tok:char",
        "beam 4",
        "fr-en (the model does not know fr)",
        "German → English",
        "(nothing)",
    ):
        assert expected in text
    assert "de-en: BLEU 1.0, chrF++ 10.0, 9 sentences" in page.attributes["title"]


# The command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory whose translator is a fake, in the working directory."""
    monkeypatch.chdir(tmp_path)
    save_recipe(RECIPE, tmp_path / "toy")
    write_set(tmp_path / "toy" / "data" / "test", TEXT)

    def translator(run: str, *, step: int | None = None, precision: str | None = None) -> FakeTranslator:
        if step not in (None, 7):
            raise UserError(f"no checkpoint of step {step} in {run} (there is: 7)")
        return FakeTranslator()

    monkeypatch.setitem(sys.modules, "nmt.decode.translator", SimpleNamespace(Translator=translator))
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    return tmp_path / "toy"


@pytest.fixture
def nmt_evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: status, standard output, standard error."""

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nmt-evaluate", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return called


def test_the_command_prints_the_table(run, nmt_evaluate) -> None:
    status, out, err = nmt_evaluate("toy")
    assert status == 0
    assert "toy, step 7, test" in out
    assert "mean into English" in out
    assert "written to toy/evaluation/7/test" in err
    assert (run / "evaluation" / "7" / "test" / "report.html").exists()
    assert (run / "evaluation" / "7" / "test" / "matrix.md").read_text().startswith("| ")
    assert "as before" in nmt_evaluate("toy")[2]
    assert "as before" not in nmt_evaluate("toy", "--force")[2]


def test_the_command_prints_json_and_nothing_else(run, nmt_evaluate) -> None:
    status, out, _ = nmt_evaluate("toy", "--json", "--pairs", "en-de,deu_Latn-en", "--pairs", "es-en", "--beam", "2")
    matrix = json.loads(out)
    assert status == 0
    assert [result["direction"] for result in matrix["results"]] == ["en-de", "de-en", "es-en"]
    assert {result["decode"]["beam"] for result in matrix["results"]} == {2}


def test_the_command_takes_a_file_and_a_folder(run, nmt_evaluate) -> None:
    Path("own.tsv").write_text("Rot.\tRed.\n")
    status, out, _ = nmt_evaluate("toy", "--testset", "own.tsv", "--pairs", "de-en", "--json")
    assert (status, json.loads(out)["results"][0]["sentences"]) == (0, 1)
    assert nmt_evaluate("toy", "--testset", "toy/data/test")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to"], r"to is not a run directory: there is no such folder; did you mean"),
        (["toy", "--testset", "dev"], r"no stored dev set in toy/data/dev: `nmt-train recipe=toy/recipe\.yaml`"),
        (["toy", "--testset", "tests"], r"no test set tests: .*did you mean test\?"),
        (["toy", "--pairs", "de-es"], r"no test set for de-es in .*there are: de-en, en-de, es-en"),
        (["toy", "--pairs", "fr-en"], r"the model does not know fr"),
        (["toy", "--pairs", "germna-en"], r"unknown language 'germna'; did you mean de \(German\)"),
        (["toy", "--pairs", ","], r"no direction is given \(in toy/data/test there are: de-en, en-de, es-en\)"),
        (["toy", "--testset", ""], r"holds no test set"),
        (["toy", "--step", "8"], r"no checkpoint of step 8 in toy"),
        (["toy", "--beam", "0"], r"'--beam'.* 1.* \(see nmt-evaluate --help\)"),
        (["toy", "--bem", "2"], r"[Nn]o such option.*--bem"),
        ([], r"[Mm]issing argument 'RUN'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run, nmt_evaluate, arguments, message) -> None:
    status, out, err = nmt_evaluate(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("nmt-evaluate: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt, 130), (UserError, 2)])
def test_what_ends_the_command_while_it_translates(run, nmt_evaluate, monkeypatch, raised, status) -> None:
    def translate(*_: object, **__: object) -> list[str]:
        raise raised

    monkeypatch.setattr(FakeTranslator, "translate", translate)
    assert nmt_evaluate("toy")[0] == status


def test_a_bug_keeps_its_traceback(run, nmt_evaluate, monkeypatch) -> None:
    monkeypatch.setattr(FakeTranslator, "translate", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["nmt-evaluate", "toy"])
    with pytest.raises(ZeroDivisionError):
        command.main()


def test_help_names_what_a_test_set_may_be(nmt_evaluate) -> None:
    status, out, _ = nmt_evaluate("--help")
    assert status == 0
    for word in ("--testset", "--pairs", "--beam", "--step", "--force", "--json", "source<TAB>target", "de-en.jsonl"):
        assert word in out
