"""From rows to pairs: what is kept of like texts, and that nothing crosses the splits."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config import CleanConfig
from nmt.data.clean import Reason, digit_template
from nmt.data.corpora import SPLITS
from nmt.data.corpora.read import Row
from nmt.data.corpora.sieve import Sieve
from nmt.data.corpora.spec import SplitRule
from nmt.languages import Direction

CLEAN = CleanConfig()
DE_EN, EN_DE, ES_DE = Direction("de", "en"), Direction("en", "de"), Direction("es", "de")
RULE = SplitRule(test=30, dev=60)
WORDS = ["alarm", "bridge", "button", "1", "22"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=3, max_size=5).map(" ".join)
ROWS = st.lists(
    st.builds(
        Row,
        language=st.just("en"),
        component=st.sampled_from("abcdefgh"),
        key=st.just(()),
        text=TEXTS,
        translations=st.dictionaries(st.sampled_from(["de", "es"]), TEXTS.map(str.upper)),
    ),
    max_size=40,
)
DIRECTIONS = (DE_EN, EN_DE, ES_DE)


def sieved(rows: list[Row], directions: tuple[Direction, ...] = DIRECTIONS) -> Sieve:
    sieve = Sieve(directions, CLEAN)
    for row in rows:
        sieve.add(row, RULE)
    return sieve


@settings(deadline=None)
@given(ROWS)
def test_splits_share_no_text_in_any_language_and_nothing_is_lost(rows: list[Row]) -> None:
    sieve = sieved(rows)
    sieve.hold_out()
    texts: dict[str, dict[str, set[str]]] = {split: {"en": set(), "de": set(), "es": set()} for split in SPLITS}
    for direction, splits in sieve.pairs().items():
        for split, pairs in splits.items():
            for pair in pairs:
                for language, text in zip(direction, pair, strict=True):
                    texts[split][language].add(text)
        read = sum(set(direction) <= {"en", *row.translations} for row in rows)
        assert sum(map(len, splits.values())) + sieve.rejections[direction].total() == read
        assert all(sieve.rejections[direction].values())
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for language in ("en", "de", "es"):
            assert not texts[first][language] & texts[second][language]
    english = [text for split in SPLITS for text in texts[split]["en"]]
    assert len({digit_template(text) for text in english}) == len(english)


@settings(deadline=None)
@given(ROWS)
def test_the_split_of_a_text_depends_on_components_only(rows: list[Row]) -> None:
    first: dict[str, str] = {}
    for row in rows:
        if len(row.text.split()) >= 4 and sum(map(str.isalpha, row.text)) >= 0.6 * len(row.text.replace(" ", "")):
            first.setdefault(digit_template(row.text), row.component)
    for split, pairs in sieved(rows).pairs()[DE_EN].items():
        assert all(RULE.of(first[digit_template(english)]) == split for _, english in pairs)


@settings(deadline=None)
@given(ROWS)
def test_the_two_directions_of_a_pair_mirror_each_other(rows: list[Row]) -> None:
    pairs = sieved(rows).pairs()
    for split in SPLITS:
        assert pairs[DE_EN][split] == [(german, english) for english, german in pairs[EN_DE][split]]


def row(component: str, text: str, **translations: str) -> Row:
    return Row("en", component, (), text, translations)


def outcome(*rows: Row, directions: tuple[Direction, ...] = DIRECTIONS) -> tuple[list[Any], list[Any]]:
    """Return the pairs and the rejections of all directions, splits aside."""
    sieve = sieved(list(rows), directions)
    sieve.hold_out()
    pairs = [[pair for split in SPLITS for pair in splits[split]] for splits in sieve.pairs().values()]
    return pairs, [dict(counter) for counter in sieve.rejections.values()]


def test_one_translation_a_text_and_one_text_a_template() -> None:
    rows = (
        row("a", "Press the first button", de="Ersten Knopf drücken"),
        row("b", "Press the first button", de="Drücke den ersten Knopf"),
        row("a", "Press the button 12", de="Drücke den Knopf 12"),
        row("b", "Press the button 3", de="Drücke den Knopf 3"),
    )
    pairs, rejections = outcome(*rows, directions=(EN_DE,))
    assert pairs == [[(rows[0].text, "Ersten Knopf drücken"), (rows[2].text, "Drücke den Knopf 12")]]
    assert rejections == [{Reason.DUPLICATE: 1, Reason.DIGITS_DUPLICATE: 1}]


def test_a_repeated_text_gives_each_direction_its_first_pair_and_all_of_them_one_split() -> None:
    rows = [
        row("a", "The alarm was set off"),
        row("b", "The alarm was set off", de="Der Alarm ging los"),
        row("c", "The alarm was set off", de="Alarm wurde ausgelöst", es="La alarma se ha activado"),
    ]
    pairs = sieved(rows).pairs()
    split = RULE.of("a")
    assert len({split, RULE.of("b"), RULE.of("c")}) > 1
    assert pairs[EN_DE][split] == [("The alarm was set off", "Der Alarm ging los")]
    assert pairs[ES_DE][split] == [("La alarma se ha activado", "Alarm wurde ausgelöst")]


def test_two_foreign_languages_are_checked_against_the_key_and_each_other() -> None:
    text = "Home assistant could not start"
    rows = (
        row("a", f"{text} one", de="Hallo du schöne Welt", es="Hallo du schöne Welt"),
        row("a", f"{text} two", de="Hallo", es="Hola a todo el mundo"),
        row("a", f"{text} three", de="Hallo du {name} Welt", es="Hola a todo el mundo"),
        row("a", "too short", de="Hallo du schöne Welt", es="Hola a todo el mundo"),
    )
    pairs, rejections = outcome(*rows, directions=(ES_DE,))
    assert pairs == [[]]
    assert rejections == [{Reason.COPY: 1, Reason.LENGTH_RATIO: 1, Reason.PLACEHOLDER: 1, Reason.TOO_SHORT: 1}]


def test_training_gives_way_where_a_translation_stands_in_held_out_text() -> None:
    by_split = {RULE.of(component): component for component in "abcdefgh"}
    assert set(by_split) == set(SPLITS)
    rows = [
        row(by_split["train"], "The alarm was set off", de="Der Alarm ging los"),
        row(by_split["dev"], "The alarm has gone off", de="Der Alarm ging los"),
        row(by_split["test"], "The alarm did go off", de="Der Alarm ging los"),
    ]
    sieve = sieved(rows, (EN_DE,))
    sieve.hold_out()
    assert sieve.pairs()[EN_DE] == {"train": [], "dev": [], "test": [("The alarm did go off", "Der Alarm ging los")]}
    assert sieve.rejections[EN_DE] == Counter({Reason.HELD_OUT: 2})
    assert sieve.rows() == {"train": 0, "dev": 0, "test": 1}
