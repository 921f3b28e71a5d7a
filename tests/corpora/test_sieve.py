"""From rows to pairs: what is kept of like texts, and that nothing crosses the splits."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sieve_oracle import SlowSieve, folded

from nmt.config import CleanConfig
from nmt.corpora import SPLITS, Corpus
from nmt.corpora.clean import Reason
from nmt.corpora.cleaned import build as building
from nmt.corpora.cleaned.build import CleaningJob
from nmt.corpora.cleaned.sieve import SAMPLES
from nmt.corpora.declare.spec_split import HashedSplits
from nmt.corpora.readers.reader import Row
from nmt.languages import Direction

CLEAN = CleanConfig(max_overlap=None)
DE_EN, EN_DE, ES_DE = Direction("de", "en"), Direction("en", "de"), Direction("es", "de")
RULE = HashedSplits(test=30, dev=30)
WORDS = ["alarm", "bridge", "button", "Button", "1", "22", "-"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=3, max_size=5).map(" ".join)
ROWS = st.lists(
    st.builds(
        Row,
        language=st.sampled_from(["en", "en", "en", "de"]),
        component=st.sampled_from("abcdefgh"),
        key=st.just(()),
        text=TEXTS,
        translations=st.dictionaries(st.sampled_from(["de", "es"]), TEXTS.map(str.upper)),
    ).map(
        lambda row: (
            row if row.language not in row.translations else Row("en", row.component, (), row.text, row.translations)
        )
    ),
    max_size=40,
)
DIRECTIONS = (DE_EN, EN_DE, ES_DE)


def corpora_of(*rows: Sequence[Row]) -> Any:
    """Open corpora of some rows each."""
    return SimpleNamespace(
        sources=[
            SimpleNamespace(
                rows=lambda wanted, rows=rows: iter(rows),
                spec=SimpleNamespace(split=RULE, name=f"x{number}", monolingual=False),
                provenance=(), unreadable=(), unregistered=(), skipped={},
            )
            for number, rows in enumerate(rows)
        ],
        failures={},
    )  # fmt: skip


def sieved(
    rows: Sequence[Row], directions: tuple[Direction, ...] = DIRECTIONS, clean: CleanConfig = CLEAN, workers: int = 1
) -> Corpus:
    """Return the corpus of some rows, its folder gone with it."""
    folder = tempfile.TemporaryDirectory()
    corpus = building.build(Path(folder.name), corpora_of(rows), CleaningJob("digest", directions, clean, workers))
    vars(corpus.candidates)["kept"] = folder
    return corpus


def slowly(rows: Sequence[Row], directions: tuple[Direction, ...], clean: CleanConfig) -> SlowSieve:
    sieve = SlowSieve(directions, clean)
    for row in rows:
        sieve.add(row, RULE)
    sieve.finish()
    return sieve


@pytest.fixture(params=["in memory", "on disk"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "on disk":
        monkeypatch.setattr(building, "BUFFER_BYTES", 200)
        monkeypatch.setattr(building, "_ROWS", 3)
    return


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("duplicates", ["folded", "digits", "exact", "keep"])
def test_the_sieve_on_disk_is_the_slow_one(duplicates: Any) -> None:
    @settings(deadline=None, max_examples=50)
    @given(
        ROWS,
        st.sampled_from([None, 0.5, 0.8, 1.0]),
        st.lists(st.sampled_from([DE_EN, EN_DE, ES_DE, Direction("en", "es")]), min_size=1, unique=True).map(tuple),
    )
    def check(rows: list[Row], overlap: float | None, directions: tuple[Direction, ...]) -> None:
        clean = CleanConfig(duplicates=duplicates, max_overlap=overlap, overlap_ngram=2)
        fast, slow = sieved(rows, directions, clean), slowly(rows, directions, clean)
        assert fast.pairs == slow.pairs()
        assert fast.rejections == slow.rejections
        assert fast.rows == slow.rows()
        for direction, splits in slow.pairs().items():
            for split, pairs in splits.items():
                size = fast.sizes[direction][split]
                words, characters = ([sum(map(count, side)) for side in zip(*pairs, strict=True)] or [0, 0]
                                     for count in (lambda text: len(text.split()), len))  # fmt: skip
                assert size == (len(pairs), tuple(words), tuple(characters))
            counts = {reason: min(count, SAMPLES) for reason, count in slow.rejections[direction].items()}
            assert {reason: len(some) for reason, some in fast.samples[direction].items()} == counts

    check()


def many_rows() -> list[Row]:
    words = ["alarm", "bridge", "button", "lamp", "door"]
    texts = [f"{a} {b} {c} {d}" for a in words for b in words for c in words for d in words]
    return [
        Row("en", f"c{i % 40}", (), text, {"de": texts[-(i // 2)].title(), "es": f"{texts[i // 2]} {i}"})
        for i, text in enumerate(texts)
    ]


def test_the_number_of_processes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many_rows()
    monkeypatch.setattr(building, "_ROWS", 30)
    one, two = sieved(rows, clean=CleanConfig()), sieved(rows, clean=CleanConfig(), workers=2)
    monkeypatch.setattr(building, "_ROWS", 7)
    three = sieved(rows, clean=CleanConfig())
    for other in (two, three):
        for path in ("verdicts", "couples/de+en.texts", "couples/de+es.records"):
            assert (other.candidates.folder / path).read_bytes() == (one.candidates.folder / path).read_bytes()
        assert (other.rejections, other.samples, other.rows) == (one.rejections, one.samples, one.rows)
    assert {Reason.CONTAMINATED, Reason.HELD_OUT} <= set(one.rejections[DE_EN])


@settings(deadline=None)
@given(ROWS)
def test_splits_share_no_text_in_any_language_and_nothing_is_lost(rows: list[Row]) -> None:
    corpus = sieved(rows)
    texts: dict[str, dict[str, set[str]]] = {split: {"en": set(), "de": set(), "es": set()} for split in SPLITS}
    for direction, splits in corpus.pairs.items():
        for split, pairs in splits.items():
            for pair in pairs:
                for language, text in zip(direction, pair, strict=True):
                    texts[split][language].add(text)
        read = sum(set(direction) <= {row.language, *row.translations} for row in rows)
        assert sum(map(len, splits.values())) + corpus.rejections[direction].total() == read
        assert all(corpus.rejections[direction].values())
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for language in ("en", "de", "es"):
            assert not texts[first][language] & texts[second][language]


@settings(deadline=None)
@given(ROWS)
def test_the_split_of_a_text_depends_on_components_only(rows: list[Row]) -> None:
    rows = [row for row in rows if row.language == "en"]
    first: dict[str, str] = {}
    for row in rows:
        if len(row.text.split()) >= 4 and sum(map(str.isalpha, row.text)) >= 0.6 * len(row.text.replace(" ", "")):
            first.setdefault(folded(row.text), row.component)
    for split, pairs in sieved(rows).pairs[DE_EN].items():
        assert all(RULE.assign(first[folded(english)]) == split for _, english in pairs)


def row(component: str, text: str, **translations: str) -> Row:
    return Row("en", component, (), text, translations)


def outcome(
    *rows: Row, directions: tuple[Direction, ...] = DIRECTIONS, clean: CleanConfig = CLEAN
) -> tuple[list[Any], list[Any]]:
    """Return the pairs and the rejections of all directions, splits aside."""
    corpus = sieved(list(rows), directions, clean)
    pairs = [[pair for split in SPLITS for pair in splits[split]] for splits in corpus.pairs.values()]
    return pairs, [dict(counter) for counter in corpus.rejections.values()]


def test_one_translation_a_text_and_one_text_a_template() -> None:
    rows = (
        row("a", "Press the first button", de="Ersten Knopf drücken"),
        row("b", "Press the first button", de="Drücke den ersten Knopf"),
        row("a", "Press the button 12", de="Drücke den Knopf 12"),
        row("b", "Press the button 3", de="Drücke den Knopf 3"),
        row("b", "press the button 12!", de="drücke Knopf 12!"),
    )
    pairs, rejections = outcome(*rows, directions=(EN_DE,))
    assert pairs == [[(rows[0].text, "Ersten Knopf drücken"), (rows[2].text, "Drücke den Knopf 12")]]
    assert rejections == [{Reason.DUPLICATE: 1, Reason.NEAR_DUPLICATE: 2}]
    for duplicates, kept in (("digits", 3), ("exact", 4), ("keep", 5)):
        pairs, _ = outcome(*rows, directions=(EN_DE,), clean=CleanConfig(duplicates=duplicates, max_overlap=None))
        assert len(pairs[0]) == kept


def test_a_repeated_text_gives_each_direction_its_first_pair_and_all_of_them_one_split() -> None:
    rows = [
        row("a", "The alarm was set off"),
        row("b", "The alarm was set off", de="Der Alarm ging los"),
        row("c", "The alarm was set off", de="Alarm wurde ausgelöst", es="La alarma se ha activado"),
    ]
    pairs = sieved(rows).pairs
    split = RULE.assign("a")
    assert len({split, RULE.assign("b"), RULE.assign("c")}) > 1
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


BY_SPLIT = {RULE.assign(component): component for component in "abcdefgh"}


def test_training_gives_way_where_a_translation_stands_in_held_out_text() -> None:
    assert set(BY_SPLIT) == set(SPLITS)
    rows = [
        row(BY_SPLIT["train"], "The alarm was set off", de="Der Alarm ging los"),
        row(BY_SPLIT["dev"], "The alarm has gone off", de="Der Alarm ging los"),
        row(BY_SPLIT["test"], "The alarm did go off", de="Der Alarm ging los"),
    ]
    corpus = sieved(rows, (EN_DE,))
    assert corpus.pairs[EN_DE] == {"train": [], "dev": [], "test": [("The alarm did go off", "Der Alarm ging los")]}
    assert corpus.rejections[EN_DE] == Counter({Reason.HELD_OUT: 2})
    assert corpus.rows == {"train": 0, "dev": 0, "test": 1}


def test_training_gives_way_to_test_sets_and_dev_does_not(tmp_path: Path) -> None:
    (tmp_path / "set.tsv").write_text("the ALARM was set off!\tNichts dergleichen\n")
    (tmp_path / "set.jsonl").write_text('{"source": ["Tür und Tor sind offen"], "id": 7}\n\n')
    clean = CleanConfig(
        max_overlap=None, decontaminate=tuple(str(tmp_path / f"set.{kind}") for kind in ("tsv", "jsonl"))
    )
    rows = [
        row(BY_SPLIT["train"], "The alarm was set off", de="Der Alarm ging los"),
        row(BY_SPLIT["train"], "Doors and gates are open", de="Tür und Tor sind offen."),
        row(BY_SPLIT["train"], "The alarm was not set off", de="Es gab keinen Alarm"),
        row(BY_SPLIT["dev"], "The alarm was set off 1", de="Der Alarm ging los 1"),
    ]
    corpus = sieved(rows, (EN_DE,), clean)
    assert corpus.pairs[EN_DE]["train"] == [(rows[2].text, "Es gab keinen Alarm")]
    assert len(corpus.pairs[EN_DE]["dev"]) == 1
    assert corpus.rejections[EN_DE] == Counter({Reason.CONTAMINATED: 2})
