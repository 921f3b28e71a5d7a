"""Options of a request: defaults of the recipe, bounds, lengths, and the names that other toolkits use."""

from dataclasses import fields

import pytest

from nmt.config import DecodeConfig
from nmt.config.keys import keys_by_name
from nmt.decode.options import CTRANSLATE2_NAMES, SearchOptions
from nmt.errors import UserError


def test_defaults_are_those_of_the_schema():
    assert SearchOptions.from_config(DecodeConfig()) == SearchOptions()
    own = {field.name for field in fields(SearchOptions)}
    assert own - set(DecodeConfig.model_fields) == {"alternatives", "min_alternative_probability"}
    assert set(DecodeConfig.model_fields) <= own


def test_a_recipe_gives_the_values_that_a_request_does_not():
    options = SearchOptions.from_config(DecodeConfig(beam=6, suppress=("foo",)), length_penalty=1, suppress=["a", [4]])
    assert (options.beam, options.length_penalty, options.suppress) == (6, 1, ("a", (4,)))
    assert hash(options) == hash(options.changed())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam": 0}, "beam must be a whole number, at least 1 (not 0)"),
        ({"beam": "4"}, "beam must be a whole number, at least 1 (not '4')"),
        ({"length_penalty": -1.0}, "length_penalty must be a number, at least 0 (not -1.0)"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number, at least 0 (not nan)"),
        ({"patience": 0.0}, "patience must be a number, above 0, or null (not 0.0)"),
        ({"normalisation": "gnm"}, "normalisation must be one of gnmt, length, none (not 'gnm'; did you mean gnmt?)"),
        ({"sampling": 1}, "sampling must be true or false (not 1)"),
        ({"top_p": 1.5, "sampling": True}, "top_p must be a number, above 0, at most 1 (not 1.5)"),
        ({"top_k": 5}, "top_k has an effect on samples only: add sampling"),
        ({"beam": 4, "beam_groups": 3}, "beam (4) must be a multiple of beam_groups (3)"),
        ({"hypotheses": 5}, "hypotheses (5) must be at most the beam (4)"),
        ({"min_length": 5, "max_length": 4}, "min_length (5) must be at most max_length (4)"),
        (
            {"patience": 2.0, "early_stopping": False},
            "patience ends a search early, which early_stopping forbids; give one of them",
        ),
        ({"suppress": ("",)}, "suppress has an empty text"),
        ({"suppress": ((),)}, "suppress has an empty sequence"),
        ({"alternatives": -1}, "alternatives must be at least 0 (not -1)"),
        ({"alternatives": 1, "sampling": True}, "alternatives excludes sampling"),
        (
            {"min_alternative_probability": 1.0},
            "min_alternative_probability must be at least 0 and below 1 (not 1.0)",
        ),
        ({"beem": 2}, "there is no option beem; did you mean beam?"),
        ({"num_beams": 2}, "there is no option num_beams; did you mean beam?"),
        ({"zzz": 2}, "there is no option zzz"),
    ],
)
def test_a_mistake_is_one_line(given, message):
    with pytest.raises(UserError) as error:
        SearchOptions().changed(**given)
    assert str(error.value) == message


def test_samples_and_alternatives_need_no_beam_of_their_number():
    assert SearchOptions(sampling=True, hypotheses=64).hypotheses == 64
    assert SearchOptions(alternatives=2, hypotheses=7).hypotheses == 7


def test_names_of_ctranslate2_are_accepted():
    own = {field.name for field in fields(SearchOptions)}
    assert set(CTRANSLATE2_NAMES.values()) <= own
    given = {"beam_size": 5, "num_hypotheses": 3, "max_decoding_length": 9, "min_decoding_length": 2}
    given |= {"no_repeat_ngram_size": 3, "disable_unk": False, "suppress_sequences": [[7, 8]], "sampling_topk": 1}
    expected = SearchOptions(
        beam=5, hypotheses=3, max_length=9, min_length=2, no_repeat_ngram=3, unknown="allowed", suppress=((7, 8),)
    )
    assert SearchOptions().changed(**given) == expected
    sampled = SearchOptions().changed(sampling_topk=10, sampling_topp=0.9, sampling_temperature=0.5)
    assert sampled == SearchOptions(sampling=True, top_k=10, top_p=0.9, temperature=0.5)
    assert SearchOptions().changed(replace_unknowns=False, disable_unk=True).unknown == "never"
    with pytest.raises(UserError, match="vocabularies spell unknown characters in bytes"):
        SearchOptions().changed(replace_unknowns=True)
    assert SearchOptions().changed(return_alternatives=True).alternatives == 0


def test_limits_of_lengths():
    options = SearchOptions(max_length_ratio=1.5, max_length_extra=3, min_length_ratio=0.5, min_length=2)
    assert [options.max_tokens(pieces) for pieces in (0, 1, 5)] == [3, 4, 10]
    assert [options.min_tokens(pieces) for pieces in (0, 1, 5)] == [2, 2, 3]
    assert [options.changed(max_length=4).max_tokens(pieces) for pieces in (0, 5)] == [3, 4]
    assert SearchOptions(min_length=50).min_tokens(1) == 12  # the longest wins, so that a search can end


def test_every_option_of_a_recipe_is_a_key():
    assert {f"decode.{name}" for name in DecodeConfig.model_fields} <= set(keys_by_name())
