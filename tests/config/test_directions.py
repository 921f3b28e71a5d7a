"""Directions as patterns."""

from pathlib import Path

import pytest

from nmt.config.directions import expand_directions
from nmt.errors import UserError


@pytest.fixture
def corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.yaml").write_text("covers: [de, fr, en]\n")
    (tmp_path / "data" / "two.yaml").write_text("covers: [sw, fr]\n")
    (tmp_path / "data" / "both.yaml").write_text("mixture: [one, two]\n")
    (tmp_path / "data" / "silent.yaml").write_text("name: silent\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("corpora")
class TestPatterns:
    def test_are_spelt_out_over_what_the_corpora_cover(self) -> None:
        assert expand_directions(["*-en"], ["one", "two"]) == ("de-en", "fr-en", "sw-en")
        assert expand_directions(["*-en", "en-*"], ["two"]) == ("sw-en", "fr-en", "en-sw", "en-fr")

    def test_a_mixture_covers_what_its_parts_cover(self) -> None:
        assert expand_directions(["*-en"], ["both"]) == ("de-en", "fr-en", "sw-en")

    def test_of_both_sides_pair_every_language_with_every_other(self) -> None:
        assert expand_directions(["*-*"], ["two"]) == ("sw-fr", "fr-sw")

    def test_may_name_a_language_with_a_script(self) -> None:
        assert expand_directions(["zh-Hans-*", "*-sr-Latn"], ["two"]) == (
            "zh-Hans-sw",
            "zh-Hans-fr",
            "sw-sr-Latn",
            "fr-sr-Latn",
        )

    def test_give_each_direction_once(self) -> None:
        assert expand_directions(["fr-en", "*-en"], ["one"]) == ("fr-en", "de-en")

    def test_leave_others_alone_and_read_no_corpus_then(self) -> None:
        assert expand_directions(["zh-Hans-en"], ["nowhere"]) == ("zh-Hans-en",)

    def test_without_a_list_of_languages_are_an_error(self) -> None:
        with pytest.raises(UserError, match="covers"):
            expand_directions(["*-en"], ["silent"])
