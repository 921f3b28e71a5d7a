"""Pictures of a run: heat maps of experts, how much they specialise, curves; the nmt-plot command."""

import io
import json
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console
from toy_evaluation import RECIPE, FakeTranslator, write_set

import nmt.cli.plot as command
from nmt.cli.plot import show_specialisations
from nmt.config import Recipe, save_recipe
from nmt.evaluate import expert_maps
from nmt.evaluate.expert_maps import column_order, draw_experts, relative_use, row_order
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.pictures import PICTURES
from nmt.evaluate.specialisation import mutual_information, specialisations
from nmt.languages import all_languages
from nmt.train.usage import Usage, write_usage

DIRECTIONS = ("es-en", "de-en", "en-de")


def usage_of(counts: dict[str, np.ndarray], directions: tuple[str, ...] = DIRECTIONS, last: int = 20) -> Usage:
    layers = {stack: tuple(range(1, 2 * len(tables), 2)) for stack, tables in counts.items()}
    return Usage(1, last, directions, layers, counts)


def random_usage(directions: int, experts: int, layers: int = 2) -> Usage:
    codes = [language.code for language in all_languages() if language.code != "en"]
    names = [name for code in codes for name in (f"{code}-en", f"en-{code}")][:directions]
    draw = np.random.default_rng(0)
    tables = {stack: draw.integers(0, 100, (layers, directions, experts)) for stack in ("encoder", "decoder")}
    return usage_of(tables, tuple(names))


# How much experts specialise


def test_experts_of_their_own_tell_the_direction() -> None:
    counts = np.zeros((4, 8), int)
    counts[range(4), range(4)] = 10**9
    assert mutual_information(counts) == pytest.approx(2.0, abs=1e-6)


def test_experts_that_all_use_alike_tell_nothing() -> None:
    assert mutual_information(np.outer([10**6, 3 * 10**6], [1, 2, 3])) == pytest.approx(0.0, abs=1e-6)
    assert mutual_information(np.zeros((2, 3), int)) == 0.0


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=4))
def test_mutual_information_by_the_textbook(rows: list[list[int]]) -> None:
    total = sum(map(sum, rows))
    of_row, of_column = [sum(row) for row in rows], [sum(column) for column in zip(*rows, strict=True)]
    plain = sum(
        n / total * math.log2(n * total / (of_row[d] * of_column[e]))
        for d, row in enumerate(rows)
        for e, n in enumerate(row)
        if n
    )
    used = (sum(map(bool, of_row)) - 1) * (sum(map(bool, of_column)) - 1)
    expected = max(0.0, plain - used / (2 * total * math.log(2))) if total else 0.0
    assert mutual_information(np.array(rows)) == pytest.approx(expected, abs=1e-9)


def test_what_chance_shows_is_subtracted() -> None:
    draw = np.random.default_rng(1)
    found = [mutual_information(draw.multinomial(400, np.full(64, 1 / 64)).reshape(8, 8)) for _ in range(50)]
    assert np.mean(found) < 0.02  # and 0.09 bits without


def test_the_direction_that_stands_out_is_named() -> None:
    counts = np.array([[[100, 100, 100], [100, 100, 100], [20, 40, 240]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    first, nothing = specialisations(usage_of({"decoder": counts}))
    assert (first.stack, first.layer, first.direction, first.expert) == ("decoder", 1, "en-de", 2)
    assert (first.share, first.overall) == pytest.approx((0.8, 440 / 900))
    assert 0 < first.information < first.possible < math.log2(3)
    assert (nothing.layer, nothing.information, nothing.direction) == (3, 0.0, "")


def test_the_printed_table() -> None:
    console = Console(width=200, file=io.StringIO())
    counts = np.array([[[100, 20], [100, 20], [0, 240]]])
    show_specialisations(usage_of({"encoder": counts}), console)
    text = console.file.getvalue()
    for words in ("steps 1 to 20", "encoder 1", "bits", "en-de", "1: 100.0% of its tokens, 58.3% of all"):
        assert words in text


# Orders and colours


def test_directions_are_sorted_by_what_the_stack_sees() -> None:
    directions = ("en-zh-Hans", "de-en", "es-en", "en-de", "zh-Hans-de")
    encoder, decoder = ([directions[i] for i in row_order(directions, stack)] for stack in ("encoder", "decoder"))
    assert encoder == ["de-en", "en-de", "en-zh-Hans", "es-en", "zh-Hans-de"]
    assert decoder == ["en-de", "zh-Hans-de", "de-en", "es-en", "en-zh-Hans"]


def test_use_is_relative_to_the_fair_share() -> None:
    use = relative_use(np.array([[1, 1, 2, 0], [0, 0, 0, 0], [5, 5, 5, 5]]))
    np.testing.assert_allclose(use, [[1, 1, 2, 0], [np.nan] * 4, [1, 1, 1, 1]])


def test_experts_are_sorted_to_a_staircase() -> None:
    # Of experts 0 to 5: whose they are, and how much so; nobody uses expert 3, and the second row has no tokens.
    fondness = {0: (2, 3.0), 1: (0, 1.5), 2: (2, 4.0), 4: (0, 2.0), 5: (0, 1.0)}
    use = np.full((3, 6), 0.1)
    use[:, 3] = 0.0
    for expert, (row, value) in fondness.items():
        use[row, expert] = value
    use[1] = np.nan
    assert column_order(use).tolist() == [4, 1, 5, 2, 0, 3]


# Heat maps


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, instead of files."""
    found: list[Figure] = []
    monkeypatch.setattr(expert_maps, "save_figure", lambda figure, _: found.append(figure))
    return found


def test_a_heat_map_shows_the_shares(figures: list[Figure]) -> None:
    encoder = np.array([[[10, 30], [20, 20], [0, 0]], [[4, 0], [0, 4], [2, 2]]])
    decoder = np.array([[[1, 1], [1, 1], [1, 3]]])
    draw_experts(usage_of({"encoder": encoder, "decoder": decoder}), "toy", "x.svg")
    first, second, third = [axis for axis in figures[0].axes if axis.images]
    assert [axis.get_title().partition(":")[0] for axis in (first, second, third)] == [
        "encoder, layer 1",
        "encoder, layer 3",
        "decoder, layer 1",
    ]
    # Rows de-en, en-de (no tokens), es-en; columns 0 and 1, of which es-en is fondest of 1.
    assert [label.get_text() for label in first.get_yticklabels()] == ["de-en", "en-de", "es-en"]
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(2.0 ** first.images[0].get_array().filled(np.nan), [[1, 1], [np.nan] * 2, [0.5, 1.5]])
    assert [label.get_text() for label in third.get_yticklabels()] == ["en-de", "de-en", "es-en"]
    np.testing.assert_allclose(2.0 ** third.images[0].get_array(), [[1.5, 0.5], [1, 1], [1, 1]])


@pytest.mark.parametrize(("directions", "experts", "layers"), [(1, 1, 1), (4, 8, 1), (200, 600, 9)])
def test_pictures_stay_readable(figures: list[Figure], directions: int, experts: int, layers: int) -> None:
    draw_experts(random_usage(directions, experts, layers), "toy", "x.svg")
    figure = figures[0]
    assert max(figure.get_size_inches()) <= 42
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 2 * layers
    for panel in panels:
        assert panel.images[0].get_array().shape[1] <= 256
        height = figure.get_figheight() / len(panels) * 3 if layers > 1 else figure.get_figheight()
        assert len(panel.get_yticklabels()) * 6 / 72 <= height  # letters of 6 points do not overlap
        assert len(panel.get_xticklabels()) <= 16


def test_pictures_are_written_in_every_format(tmp_path: Path) -> None:
    for suffix, begin in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        path = tmp_path / f"x.{suffix}"
        draw_experts(random_usage(3, 4, 1), "toy", path)
        assert path.read_bytes().startswith(begin)
    width, height = struct.unpack(">II", (tmp_path / "x.png").read_bytes()[16:24])
    assert 300 < width < 2000
    assert 300 < height < 2000
    assert {path.name for path in tmp_path.iterdir()} == {"x.svg", "x.png", "x.pdf"}


# The command


@pytest.fixture
def nmt_plot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: status, standard output, standard error."""

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nmt-plot", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return called


def write_metrics(run: Path, recipe: Recipe, sparse: bool) -> None:
    numbers = {"loss": 2.0, **{f"nll/{direction}": 1.5 for direction in recipe.data.directions}}
    if sparse:
        for name in ("experts/encoder", "experts/encoder/1"):
            numbers |= {f"{name}/busiest": 1.5, f"{name}/idlest": 0.5, f"{name}/dropped_first": 0.1}
    lines = [{"kind": "train", "step": step, **numbers} for step in (10, 20)] + [
        {"kind": "dev", "step": 20, "nll": 1.0}
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory with metrics and two tables of experts, in the working directory."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "toy"
    save_recipe(RECIPE, run)
    write_metrics(run, RECIPE, sparse=True)
    for last in (7, 20):
        counts = np.random.default_rng(last).integers(1, 9, (1, 3, 4))
        write_usage(run, usage_of({"encoder": counts, "decoder": counts}, last=last))
    return run


@pytest.fixture
def dense(run: Path) -> Path:
    """The same of a dense model."""
    recipe = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"moe": None})})
    save_recipe(recipe, run)
    write_metrics(run, recipe, sparse=False)
    for path in (run / "experts").iterdir():
        path.unlink()
    return run


def test_the_command_knows_the_pictures() -> None:
    assert command._PICTURES == PICTURES


def test_the_command_draws_what_there_is(run: Path, nmt_plot) -> None:
    status, out, err = nmt_plot("toy")
    assert status == 0
    assert "experts by direction, steps 1 to 20" in out
    assert out.splitlines()[-2:] == ["toy/plots/run.svg", "toy/plots/experts-20.svg"]
    assert err == "nmt-plot: toy has no scores to show\n"
    assert all((run.parent / path).read_text().startswith("<?xml") for path in out.splitlines()[-2:])


def test_the_command_takes_step_folder_and_format(run: Path, nmt_plot) -> None:
    status, out, err = nmt_plot("toy", "--what", "experts", "--step", "7", "--output", "a/b", "--format", "png")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "a/b/experts-7.png"
    assert (run.parent / "a" / "b" / "experts-7.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (run.parent / "a" / "b").iterdir()] == ["experts-7.png"]


def test_scores_are_shown_where_there_are_some(run: Path, nmt_plot, monkeypatch: pytest.MonkeyPatch) -> None:
    from nmt.evaluate import pictures

    drawn = []
    monkeypatch.setattr(pictures, "draw_run", lambda *arguments: drawn.append(arguments[2]))
    write_set(run / "data" / "test", {"de-en": [("Das Haus.", "The house.")]})
    for step in (7, 12):
        evaluate(FakeTranslator(step=step), "toy")
    assert nmt_plot("toy", "--what", "run")[::2] == (0, "")
    assert nmt_plot("toy", "--what", "run", "--step", "7")[::2] == (0, "")
    assert [(matrix.step, len(matrix.cells)) for matrix in drawn] == [(12, 1), (7, 1)]
    assert "no scores of step 8" in nmt_plot("toy", "--what", "run", "--step", "8")[2]
    (run / "evaluation" / "12" / "test" / "matrix.json").write_text("{}")
    status, _, err = nmt_plot("toy", "--what", "run")
    assert status == 2
    assert re.search(r"matrix\.json is damaged: nmt-evaluate toy --step 12 makes it anew\n", err)


def test_a_dense_run_has_curves_only(dense: Path, nmt_plot) -> None:
    status, out, err = nmt_plot("toy")
    assert (status, out) == (0, "toy/plots/run.svg\n")
    assert "toy is a run of a dense model: it has no experts" in err


def test_a_line_that_is_being_written_is_left_out(run: Path, nmt_plot) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    assert nmt_plot("toy")[0] == 0


def one_mistake(ended: tuple[int, str, str]) -> str:
    status, out, err = ended
    assert (status, out) == (2, "")
    assert err.startswith("nmt-plot: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to"], r"to is not a run directory: there is no such folder; did you mean"),
        (["toy", "--what", "expert"], r"there is no picture 'expert'; did you mean experts\?"),
        (["toy", "--what", ","], r"there is no picture ''"),
        (["toy", "--what", "experts", "--step", "8"], r"no table of step 8 \(there are: 7, 20\)"),
        (["toy", "--format", "gif"], r"gif.*\(see nmt-plot --help\)"),
        (["toy", "--output", "toy/recipe.yaml"], r"cannot write pictures to toy/recipe\.yaml"),
        ([], r"[Mm]issing argument 'RUN'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run: Path, nmt_plot, arguments: list[str], message: str) -> None:
    assert re.search(message, one_mistake(nmt_plot(*arguments)))


def test_what_is_asked_for_and_not_there_is_a_mistake(dense: Path, nmt_plot) -> None:
    assert "dense model" in one_mistake(nmt_plot("toy", "--what", "run,experts"))
    (dense / "metrics.jsonl").unlink()
    assert "metrics.jsonl has no line yet" in one_mistake(nmt_plot("toy", "--what", "run"))
    assert "nothing to draw: " in one_mistake(nmt_plot("toy"))


def test_damaged_files_are_mistakes(run: Path, nmt_plot) -> None:
    (run / "experts" / "20.npz").write_bytes(b"PK")
    assert "experts/20.npz is damaged" in one_mistake(nmt_plot("toy", "--what", "experts"))
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n[]\n')
    assert "metrics.jsonl:2 is damaged" in one_mistake(nmt_plot("toy", "--what", "run"))
