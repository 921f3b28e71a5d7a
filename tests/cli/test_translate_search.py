"""Options of a search in nmt-translate: what they become, and how several hypotheses of a line are written."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from nmt.cli.translate import TranslateArguments, app
from nmt.cli.translate_arguments.scores import ScoreArguments
from nmt.cli.translate_arguments.search import SearchArguments
from nmt.decode.options import CTRANSLATE2_NAMES, SearchOptions
from nmt.decode.translator import RankedText, Translation


def parsed(*words):
    request = app(["RUN", "--from", "de", "--to", "en", *words], standalone_mode=False)
    assert isinstance(request, TranslateArguments)
    return request.search.given()


def test_options_of_the_command_are_those_of_a_search():
    own = {field.name for field in dataclasses.fields(SearchOptions)} - {"max_length_extra"}
    assert {field.name for field in dataclasses.fields(SearchArguments)} == own
    assert parsed() == {}
    given = parsed("--suppress", "a b", "--suppress", "c", "--sampling", "--top-p", "0.5", "--no-early-stopping")
    assert given == {"suppress": ("a b", "c"), "sampling": True, "top_p": 0.5, "early_stopping": False}
    assert SearchOptions().changed(**given).top_p == 0.5


def test_names_of_ctranslate2_are_options_too():
    flags = {"disable_unk", "replace_unknowns", "return_alternatives", "min_alternative_expansion_prob"}
    values = {"suppress_sequences": "x"}
    for name in CTRANSLATE2_NAMES.keys() - flags:
        assert list(parsed(f"--{name.replace('_', '-')}", values.get(name, "1"))) == [CTRANSLATE2_NAMES[name]]


def test_an_unknown_option_is_suggested_another():
    result = CliRunner().invoke(app, ["RUN", "--from", "de", "--to", "en", "--beam_size", "3"])
    assert result.exit_code == 2
    assert "--beam-size" in result.output


def test_several_hypotheses_have_a_line_each_or_a_list():
    several = Translation("a", -1.0, 1, hypotheses=(RankedText("a", -1.0), RankedText("b", -2.25)))
    assert ScoreArguments().render(several) == "1\t-1.0000\ta\n2\t-2.2500\tb"
    assert json.loads(json.dumps(ScoreArguments().json_fields(several))) == {
        "hypotheses": [{"text": "a", "score": -1.0}, {"text": "b", "score": -2.25}]
    }
    assert ScoreArguments().render(Translation("a", -1.0, 1)) == "a"


@pytest.mark.parametrize("words", [("--beam", "0"), ("--length-penalty", "-1"), ("--top-k", "x")])
def test_wrong_values_are_refused(words):
    assert CliRunner().invoke(app, ["RUN", "--from", "de", "--to", "en", *words]).exit_code == 2
