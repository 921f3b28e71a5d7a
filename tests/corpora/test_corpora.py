"""From a declaration to split pairs: the declaration, the archive, the whole road."""

import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from toy_corpus import TABLES, WHEEL, Tables, make_wheel, spec_of, values_of, write_spec

from nmt import languages
from nmt.config import CleanConfig
from nmt.corpora import (
    SPLITS,
    Corpus,
    CorpusSpec,
    inputs_digest,
    load_declaration,
    load_pairs,
    load_spec,
    load_specs,
)
from nmt.corpora.clean import Reason
from nmt.corpora.declare.spec_split import HashedSplits
from nmt.corpora.readers.json_tables import JsonTablesReader
from nmt.corpora.readers.reader import Row
from nmt.corpora.readers.tree import Archives
from nmt.errors import UserError
from nmt.files import declarations
from nmt.languages import Direction
from nmt.recipes.terminal import TerminalProgress

CLEAN = CleanConfig()
DE_EN, EN_DE, ES_DE = Direction("de", "en"), Direction("en", "de"), Direction("es", "de")
DIRECTIONS = (DE_EN, EN_DE, ES_DE)
# Of `printf %s COMPONENT | sha1sum`, modulo 100.
BUCKETS = {"abode": 4, "hue": 9, "mqtt": 43, "zwave_js": 60}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache has the file of the toy corpus."""
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora" / "toy" / WHEEL


@pytest.fixture
def wheel(place: Path) -> Path:
    """The toy corpus, in the cache."""
    return make_wheel(place)


@pytest.fixture
def toy(wheel: Path, tmp_path: Path) -> str:
    """The path of its declaration."""
    return write_spec(tmp_path, values_of(wheel))


# The declaration


def test_the_shipped_corpus_reads_every_language_of_its_files() -> None:
    codes = """
        af ar bg bn bs ca cs cy da de el en en-GB eo es es-419 et eu fa fi fr fy ga gl gsw he hi hr hu hy id is it ja ka
        ko lb lt lv mk ml nb ne nl nn pl pt pt-BR ro ru sk sl sq sr sr-Latn sv ta te th tr uk ur vi zh-Hans zh-Hant
    """
    spec = load_spec("homeassistant")
    used = [code for code in codes.split() if code not in spec.languages]
    assert [languages.get(code).code for code in used] == used
    assert set(spec.languages) == {"en-GB", "es-419"}
    assert (spec.obtain.package, spec.obtain.version) == ("homeassistant", "2026.2.3")


@pytest.mark.parametrize("name", sorted(declarations("data")))
def test_shipped_declarations_are_right(name: str) -> None:
    declaration = load_declaration(name)
    assert declaration.name == name
    assert len(set(declaration.covers)) == len(declaration.covers)
    assert [languages.get(code).code for code in declaration.covers] == list(declaration.covers)
    if isinstance(declaration, CorpusSpec):
        known = [code for code in declaration.languages.values() if code]
        assert [languages.get(code).code for code in known] == known
        assert declaration.licence
        assert "en" not in declaration.covers


def test_the_large_recipes_cover_a_hundred_languages() -> None:
    assert len(load_declaration("mix100").covers) > 100
    assert len(load_declaration("m4").covers) == 100
    assert {"GPL-2.0-or-later", "MPL-2.0", "AGPL-3.0-only"} <= {spec.licence for spec in load_specs(["mix100"])}


@pytest.mark.parametrize(("component", "bucket"), BUCKETS.items())
def test_split_follows_the_hash_of_the_component(component: str, bucket: int) -> None:
    def split(test: int, dev: int, **more: bool) -> str:
        return HashedSplits(test=test, dev=dev, **more).assign(component)

    assert split(bucket + 1, 0) == "test"
    assert split(bucket, 1) == "dev"
    assert split(bucket, 0) == "train"
    assert split(bucket, bucket + 1, cumulative=True) == "dev"
    assert split(bucket, bucket, cumulative=True) == "train"


def test_percentages_mean_what_they_say() -> None:
    rule = HashedSplits(test=5, dev=10)
    counts = Counter(rule.assign(f"document {number}") for number in range(20_000))
    assert counts["test"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert counts["dev"] / 20_000 == pytest.approx(0.10, abs=0.01)


# The bucket that the test split, and the development split behind it, ended before when `dev` counted `test` as well.
OLD_BOUNDS = {
    "bible": (1, 2), "cldr": (4, 7), "ddtp": (1, 2), "django": (1, 2), "ha_frontend": (1, 2), "homeassistant": (4, 7),
    "lo_help": (1, 2), "scratch": (1, 2), "tuxpaint": (1, 2), "udhr": (100, 100), "vlc": (1, 2), "wordpress": (1, 2),
}  # fmt: skip
# SHA-256 of the identities of then, which digests of cleaned and prepared text are made of.
OLD_IDENTITIES = {
    "bible": "328e453b90f32d85", "cldr": "245b867c51e19d3e", "ddtp": "7f08af77216dfb72", "django": "37e7365e539e57df",
    "ha_frontend": "6cb1a9ec47a943da", "homeassistant": "36483ce085341140", "lo_help": "068df417ba6c2c3b",
    "m4": "a00ab8d6744e772b", "scratch": "92bafe1cfeff0fdb", "tuxpaint": "c2248439fd501c59", "udhr": "7a3cdb012f3626ed",
    "vlc": "afdd0e96183489b5", "wesnoth": "ce65d18f2f4f916a", "wordpress": "6ad725b96ff07111",
}  # fmt: skip


@pytest.mark.parametrize(("name", "bounds"), OLD_BOUNDS.items())
def test_shipped_corpora_keep_their_splits(name: str, bounds: tuple[int, int]) -> None:
    rule = load_spec(name).split
    for number in range(1_000):
        key = f"{name} {number}"
        bucket = int.from_bytes(hashlib.sha1(key.encode()).digest()) % 100
        assert rule.assign(key) == ("test" if bucket < bounds[0] else "dev" if bucket < bounds[1] else "train")


@pytest.mark.parametrize(("name", "digest"), OLD_IDENTITIES.items())
def test_shipped_corpora_keep_their_identity(name: str, digest: str) -> None:
    content = json.dumps(load_spec(name).identity(), sort_keys=True).encode()
    assert hashlib.sha256(content).hexdigest().startswith(digest)


def test_both_forms_of_a_split_are_one_identity() -> None:
    assert HashedSplits(test=4, dev=3).identity() == HashedSplits(test=4, dev=7, cumulative=True).identity()
    assert HashedSplits(test=4, dev=7).identity() != HashedSplits(test=4, dev=7, cumulative=True).identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licens": "MIT"}, r"toy.yaml:18: unknown key licens; did you mean licence\?"),
        ({"licence": ""}, "toy.yaml:2: licence: .* at least 1 character"),
        ({"obtain": {"kind": "ftp"}}, "toy.yaml:4: obtain.kind: Input should be 'pypi', .*, not 'ftp'"),
        ({"obtain": {"kind": "pypi"}}, "toy.yaml:3: key obtain.package is missing"),
        ({"read": {"kind": "json_tables", "files": "{component}.json", "key_language": "en"}}, "read: .*{language}"),
        ({"split": {"test": 9, "dev": 7, "cumulative": True}}, "split: .*test=9 is above dev=7"),
        ({"split": {"test": 60, "dev": 50}}, "split: test=60 and dev=50 are more than 100 percent; .*cumulative: true"),
        ({"name": "../toy"}, "name: "),
        (
            {"read": {"kind": "tmx", "files": "a", "drafts": True}},
            "read.drafts; it is a key of read.kind: xliff, and tmx has files, key_language$",
        ),
        ({"read": {"kind": "tmx", "files": "a", "fils": "b"}}, r"read.fils; did you mean files\?$"),
        (
            {"split": {"by": "text", "test": 1, "dev": 1, "zzz": 3}},
            "split.zzz; split.by: text has test, dev",
        ),
        (
            {"obtain": {"kind": "files", "package": "a"}},
            "obtain.package; it is a key of obtain.kind: .*pypi.* and files has folder$",
        ),
        ({"read": {"kind": "csv", "files": "a", "columns": ["de"]}}, r"names with values .* columns: \{NAME: VALUE\}"),
        (
            {"read": {"kind": "csv", "files": "a", "columns": {"de": -1}}},
            "columns.de: a column is a name, or .* not -1$",
        ),
        ({"read": {"kind": "csv", "files": "a", "columns": {"de": "x", "en": "x"}}}, "de and en are both column x"),
    ],
)
def test_mistakes_name_file_line_and_key(change: dict[str, Any], message: str, wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_spec(write_spec(tmp_path, values_of(wheel) | change))
    assert "\n" not in str(raised.value)


def test_a_declaration_without_splits_is_told_the_three_forms(wheel: Path, tmp_path: Path) -> None:
    values = values_of(wheel)
    del values["split"]
    with pytest.raises(UserError, match=r"toy.yaml:1: key split is missing; say how rows are held out") as raised:
        load_spec(write_spec(tmp_path, values))
    assert "\n" not in str(raised.value)
    forms = re.findall(r"split: \{.*?\}", str(raised.value))
    rules = [CorpusSpec.model_validate(values | yaml.safe_load(form)).split for form in forms]
    assert [rule.by for rule in rules] == ["component", "text", "name"]
    assert rules[2].assign("newstest2019") == "train"
    assert rules[2].assign("test2019") == "test"


@pytest.mark.parametrize("option", ["--index-url=http://example.org", "toy @ http://example.org", "a b"])
def test_a_declaration_cannot_give_pip_options(option: str, wheel: Path) -> None:
    values = values_of(wheel)
    for key in ("package", "version", "file"):
        with pytest.raises(ValueError, match=key):
            CorpusSpec.model_validate(values | {"obtain": values["obtain"] | {key: option}})


# Reading


def rows_of(path: Path, wanted: set[str], **changes: Any) -> tuple[list[Row], list[str]]:
    with open_toy(path, **changes) as source:
        return list(source.rows(wanted)), source.unreadable


def open_toy(path: Path, **changes: Any) -> JsonTablesReader:
    spec = spec_of(path, **changes)
    return JsonTablesReader(spec, spec.read, Archives([path], f"corpus {spec.name}"), spec.read.patterns)


def test_rows_are_aligned_by_key_and_sorted_whatever_the_order_of_the_archive(tmp_path: Path) -> None:
    expected = [
        Row("en", "abode", ("step", "one"), "The alarm was set off",
            {"de": "Der Alarm wurde ausgelöst", "es": "La alarma se ha activado"}),
        Row("en", "abode", ("step", "two"), "Enter the code of it", {"de": "Den Code eingeben, bitte"}),
        Row("en", "abode", ("title",), "Alarm", {}),
        Row("en", "hue", ("a",), "Press the button on the bridge", {"de": "Drücke die Taste auf der Bridge"}),
        Row("en", "hue", ("b",), "The alarm was set off", {"de": "Der Alarm ging los"}),
        Row("en", "hue", ("c",), "Keep key 1 pressed now", {"de": "Taste 1 gedrückt halten"}),
    ]  # fmt: skip
    for seed in range(3):
        path = make_wheel(tmp_path / WHEEL, seed=seed)
        assert rows_of(path, {"de", "es", "en"}) == (expected, [])
    assert all(set(row.translations) <= {"es"} for row in rows_of(path, {"es"})[0])


def test_only_tables_of_wanted_languages_are_read_and_broken_ones_noted(tmp_path: Path) -> None:
    broken: Tables = {
        **TABLES,
        ("abode", "de"): b'{"title": ',
        ("hue", "de"): b"\xff\xfe\x00",
        ("abode", "es"): ["no", "table"],
        ("abode", "fr"): b"{",
        ("hue", "es"): {"a": "Pulsa el botón"},
        ("a", "en"): "text",
        ("b", "en"): b"[" * 100_000,
    }
    path = make_wheel(tmp_path / WHEEL, broken)
    rows, unreadable = rows_of(path, {"de", "es"})
    reasons = {
        ("a", "en"): "not an object",
        ("abode", "de"): "Expecting value: line 1 column 11 (char 10)",
        ("abode", "es"): "not an object",
        ("hue", "de"): "'utf-16-le' codec can't decode byte 0x00 in position 2: truncated data",
    }
    noted = [f"toy/{component}/strings/{code}.json: {reason}" for (component, code), reason in reasons.items()]
    deep = next(one for one in unreadable if one.startswith("toy/b/strings/en.json: maximum recursion depth"))
    assert sorted(unreadable) == sorted([*noted, deep])
    assert [row.translations for row in rows if row.translations] == [{"es": "Pulsa el botón"}]
    with pytest.raises(UserError, match=r"corpus toy: no pair could be read: toy/a/.*: not an object; .*; and 1 more$"):
        rows_of(path, {"de"})


def test_keys_with_dots_and_slashes_do_not_collide(tmp_path: Path) -> None:
    english = {"a.b": "one", "a": {"b": "two", "n": 3}, "a/b": "three"}
    german = {"a.b": "eins", "a": {"b": "zwei", "n": "drei"}, "a/b": "drei"}
    path = make_wheel(tmp_path / WHEEL, {("hue", "en"): english, ("hue", "de"): german})
    assert {(row.text, row.translations["de"]) for row in rows_of(path, {"de"})[0]} == {
        ("one", "eins"),
        ("two", "zwei"),
        ("three", "drei"),
    }


def test_codes_of_the_corpus_go_through_its_list_then_through_the_registry(tmp_path: Path) -> None:
    tables: Tables = {("hue", code): {"a": code} for code in ("en", "deu_Latn", "tlh", "xx", "es-419", "es")}
    path = make_wheel(tmp_path / WHEEL, tables)
    with pytest.raises(
        UserError, match=r"corpus toy: es and es-419 are all es, for the same texts; .* `languages: \{es-419: null\}`"
    ):
        rows_of(path, set())
    with pytest.raises(UserError, match=r"corpus toy: languages.tlh: unknown language 'klingonish'"):
        rows_of(path, set(), languages={"es-419": None, "tlh": "klingonish"})
    listed = {"es-419": None, "xx": "fr"}
    with open_toy(path, languages=listed) as source:
        assert source.languages == ["de", "en", "es", "fr"]
        assert source.unregistered == ["tlh"]
        assert [row.translations for row in source.rows({"de", "fr"})] == [{"de": "deu_Latn", "fr": "xx"}]


def test_an_archive_without_the_key_language(tmp_path: Path) -> None:
    path = make_wheel(tmp_path / WHEEL, {("hue", "de"): {"a": "eins"}})
    with pytest.raises(UserError, match=r"corpus toy: there is no en table among toy/\{component\}/strings"):
        open_toy(path)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match="corpus toy: cannot read"):
        open_toy(path)


# The whole road


def test_load_pairs(toy: str) -> None:
    corpus = load_pairs([toy], [DE_EN, ES_DE], CLEAN)
    dev = [
        ("Der Alarm wurde ausgelöst", "The alarm was set off"),
        ("Den Code eingeben, bitte", "Enter the code of it"),
    ]
    train = [
        ("Drücke die Taste auf der Bridge", "Press the button on the bridge"),
        ("Taste 1 gedrückt halten", "Keep key 1 pressed now"),
    ]
    assert corpus.pairs[DE_EN] == {"train": train, "dev": dev, "test": []}
    assert corpus.pairs[ES_DE]["dev"] == [("La alarma se ha activado", "Der Alarm wurde ausgelöst")]
    assert corpus.rejections == {DE_EN: Counter({Reason.DUPLICATE: 1}), ES_DE: Counter()}
    assert corpus.rows == {"train": 2, "dev": 2, "test": 0}
    (provenance,) = corpus.provenance
    assert (provenance.name, provenance.version, provenance.licence) == ("toy", "1.0", "CC0-1.0")


def test_the_order_of_files_in_the_archive_changes_nothing(place: Path, tmp_path: Path) -> None:
    def load(seed: int) -> Corpus:
        path = make_wheel(place, seed=seed)
        return load_pairs([write_spec(tmp_path, values_of(path))], DIRECTIONS, CLEAN)

    first, second = load(1), load(2)
    assert first.provenance != second.provenance
    assert (first.pairs, first.rejections) == (second.pairs, second.rejections)


def test_a_second_corpus_gives_no_text_that_the_first_has(toy: str, tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "cache" / "corpora" / "other" / WHEEL, {
        ("zwave_js", "en"): {"a": "The alarm was set off", "b": "Wake the device up first"},
        ("zwave_js", "de"): {"a": "Alarm wurde eben ausgelöst", "b": "Wecke zuerst das Gerät auf"},
    })  # fmt: skip
    other = write_spec(tmp_path, values_of(path) | {"name": "other"}, "other.yaml")
    corpus = load_pairs([toy, other], [EN_DE], CLEAN)
    pairs = [pair for split in SPLITS for pair in corpus.pairs[EN_DE][split]]
    assert [german for english, german in pairs if english == "The alarm was set off"] == ["Der Alarm wurde ausgelöst"]
    assert ("Wake the device up first", "Wecke zuerst das Gerät auf") in pairs
    assert [provenance.name for provenance in corpus.provenance] == ["toy", "other"]


def test_a_direction_without_text_names_what_there_is(toy: str) -> None:
    with pytest.raises(UserError, match=r"no text for the direction fr-en, de-fr: corpus toy has de, en, es$"):
        load_pairs([toy], [Direction("fr", "en"), DE_EN, Direction("de", "fr")], CLEAN)


def test_a_direction_of_which_nothing_is_left_says_why(toy: str) -> None:
    with pytest.raises(
        UserError, match=r"cleaning leaves no pair of the direction es-en \(1 too_short\), en-es \(1 too_"
    ):
        load_pairs([toy], [Direction("es", "en"), DE_EN, Direction("en", "es")], CleanConfig(min_words=6))


def test_unreadable_tables_are_reported(place: Path, tmp_path: Path) -> None:
    path = make_wheel(place, {**TABLES, ("abode", "de"): b"{"})
    output = io.StringIO()
    corpus = load_pairs(
        [write_spec(tmp_path, values_of(path))], [DE_EN], CLEAN, TerminalProgress(Console(file=output, width=300))
    )
    (unreadable,) = corpus.unreadable
    assert unreadable.startswith("toy: toy/abode/strings/de.json: Expecting property name enclosed in double quotes")
    assert output.getvalue() == f"warning: 1 damaged file: {unreadable}\n"


def test_the_digest_follows_what_determines_the_pairs_and_nothing_else(toy: str, wheel: Path) -> None:
    spec = load_spec(toy)
    digest = inputs_digest([spec], [DE_EN], CLEAN)
    assert load_pairs([toy], [DE_EN], CLEAN).digest == digest
    assert inputs_digest([spec_of(wheel, description="Other words")], [DE_EN], CLEAN) == digest
    others = {
        inputs_digest([spec], [EN_DE], CLEAN),
        inputs_digest([spec], [DE_EN], CleanConfig(min_words=3)),
        inputs_digest([spec, spec], [DE_EN], CLEAN),
        inputs_digest([spec_of(wheel, split={"test": 5, "dev": 7})], [DE_EN], CLEAN),
        inputs_digest([spec_of(wheel, languages={"es": None})], [DE_EN], CLEAN),
        inputs_digest([spec_of(wheel, obtain=values_of(wheel)["obtain"] | {"sha256": "0" * 64})], [DE_EN], CLEAN),
    }
    assert len(others | {digest}) == 7
