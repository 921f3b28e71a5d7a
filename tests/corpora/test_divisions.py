"""Names of files that hold codes of languages: regions, scripts, and two spellings of one language."""

import gzip
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from toy_corpus import open_files, texts

from nmt import languages
from nmt.corpora import CorpusReader
from nmt.corpora.declare.patterns import compile_pattern, match_path
from nmt.errors import UserError
from nmt.languages import parse_direction


def fields(pattern: str, name: str, *declared: str) -> tuple[str, ...]:
    found = match_path(compile_pattern(pattern), name, declared)
    assert found is not None
    codes = (code for code in (found.language, found.source, found.target) if code)
    return (*((found.component,) if found.component else ()), *codes)


@pytest.mark.parametrize("separator", ["-", "_", ".", "2", "/"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("en", "pt-BR"), ("pt-BR", "en"), ("en", "zh-TW"), ("zh-TW", "en"), ("en", "fr-CA"), ("fr-CA", "en"),
        ("en", "hi-IN"), ("hi-IN", "en"), ("en", "sv-SE"), ("sv-SE", "en"), ("en", "es-MX"), ("en-GB", "de"),
        ("pt_BR", "en_US"), ("zh-Hans", "en"), ("sr-Latn", "hr"), ("sr@latin", "hr"), ("es-419", "de"),
        ("deu_Latn", "eng_Latn"), ("zho_Hant_TW", "en"), ("EN", "PT-BR"), ("de", "en"), ("pt", "pt-BR"), ("en", "xyz"),
        ("en-IN", "hi"), ("ca-ES-valencia", "es"), ("apc_Arab_nort3139", "eng_Latn"),
    ],
)  # fmt: skip
def test_a_region_stays_with_its_language(source: str, target: str, separator: str) -> None:
    pattern = f"{{source}}{separator}{{target}}.tsv"
    assert fields(pattern, f"{source}{separator}{target}.tsv") == (source, target)


@pytest.mark.parametrize("text", ["en-pt-BR", "zh-Hans-pt-BR", "sl-SI-en", "de-en", "fr-CA-en", "pt-pt-BR", "en-zh-TW"])
def test_names_are_divided_as_directions_are(text: str) -> None:
    expected = parse_direction(text)
    source, target = fields("{source}-{target}", text)
    assert (languages.get(source).code, languages.get(target).code) == tuple(expected)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("{component}-{source}-{target}.tsv", "news-2020-en-pt-BR.tsv", ("news-2020", "en", "pt-BR")),
        ("{component}-{source}-{target}.tsv", "news-fr-CA-en.tsv", ("news", "fr-CA", "en")),
        ("{component}.{source}-{target}.{language}", "a.b.en-pt_BR.pt_BR", ("a.b", "pt_BR", "en", "pt_BR")),
        ("{component}.{source}-{target}.{language}", "a.en-zh-TW.en", ("a", "en", "en", "zh-TW")),
        ("{component}-{language}.txt", "news-pt-BR.txt", ("news", "pt-BR")),
        ("{component}-{language}.txt", "news-pt-br.txt", ("news", "pt-br")),
        ("{component}-{language}.txt", "news-fr-CA.txt", ("news", "fr-CA")),
        ("{component}-{language}.txt", "wiki-2020-de.txt", ("wiki-2020", "de")),
        ("{component}_{language}.txt", "a_zho_Hant.txt", ("a", "zho_Hant")),
        ("{language}-{component}.txt", "pt-BR-news.txt", ("news", "pt-BR")),
        ("{language}-*.json", "zh-TW-0af.json", ("zh-TW",)),
        ("*-{source}-{target}.tsv", "x-hi-IN-en.tsv", ("hi-IN", "en")),
        ("{source}/{source}-{target}.tsv", "pt-BR/pt-BR-en.tsv", ("pt-BR", "en")),
    ],
)
def test_a_region_is_no_part_of_what_stands_beside_it(pattern: str, name: str, expected: tuple[str, ...]) -> None:
    assert fields(pattern, name) == expected


def test_several_readings_are_named_with_what_to_write() -> None:
    with pytest.raises(UserError) as error:
        fields("{source}-{target}.tsv", "en-fr-ca.tsv")
    message = str(error.value)
    assert "en-fr-ca.tsv may be en-fr (English) and ca (Catalan) or en (English) and fr-ca (French) by " in message
    assert "say under languages: which is meant, `en-fr: en` or `fr-ca: fr`" in message
    assert fields("{source}-{target}.tsv", "en-fr-ca.tsv", "fr-ca") == ("en", "fr-ca")
    assert fields("{source}-{target}.tsv", "en-fr-ca.tsv", "ca") == ("en-fr", "ca")
    with pytest.raises(UserError, match=r"news-fr-ca.txt may be ca \(Catalan\) or fr-ca \(French\)"):
        fields("{component}-{language}.txt", "news-fr-ca.txt")


def test_names_of_many_wild_cards_are_divided_quickly() -> None:
    name = "-".join(["a"] * 60) + "-en-pt-BR.tsv"
    pattern = "*-*-*-{component}-{source}-{target}.tsv"
    assert fields(pattern, name)[1:] == ("en", "pt-BR")


# Corpora


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., CorpusReader]:
    """Open a corpus of files in a folder of the test."""
    return partial(open_files, tmp_path)


def test_a_region_in_the_name_of_a_file_of_pairs(corpus: Callable[..., CorpusReader]) -> None:
    opened = corpus({"kind": "tsv", "files": "{source}-{target}.tsv"}, {"en-pt-BR.tsv": "one\tum\n"})
    assert opened.languages == ["en", "pt-BR"]
    assert texts(opened) == [("one", {"pt-BR": "um"})]


def test_two_spellings_in_different_files_are_united(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "parallel_text", "files": "{component}.{source}-{target}.{language}"}
    files = {"A.en-no.en": "1\n", "A.en-no.no": "en\n", "B.en-nb.en": "2\n", "B.en-nb.nb": "to\n"}
    assert texts(corpus(read, files)) == [("1", {"nb": "en"}), ("2", {"nb": "to"})]


def test_two_spellings_of_one_text_are_all_named_at_once(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "parallel_text", "files": "{component}.{language}"}
    files = {f"A.{code}": "x\n" for code in ("en", "no", "nb", "iw", "he")} | {"B.zh": "x\n", "B.zh_CN": "x\n"}
    with pytest.raises(UserError) as error:
        corpus(read, files | {"C.en": "x\n", "C.zh": "x\n"})
    message = str(error.value)
    assert "he and iw are all he, nb and no are all nb, zh and zh_CN are all zh-Hans, for the same texts" in message
    assert message.endswith("`languages: {iw: null, no: null, zh_CN: null}`")
    unused = {"iw": None, "no": None, "zh_CN": None}
    assert corpus(read, files, languages=unused).languages == ["en", "he", "nb", "zh-Hans"]


def test_files_of_different_patterns_are_not_of_the_same_texts(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "parallel_text", "files": ["train.{language}", "dev.{language}.gz"]}
    files = {"train.en": "1\n", "train.de": "eins\n"}
    files |= {f"dev.{code}.gz": gzip.compress(text) for code, text in (("en", b"2\n"), ("de", b"zwei\n"))}
    assert texts(corpus(read, files)) == [("2", {"de": "zwei"}), ("1", {"de": "eins"})]
    packed = {"train.en": "1\n", "train.de.gz": gzip.compress(b"eins\n")}
    read = {"kind": "parallel_text", "files": ["train.{language}", "train.{language}.gz"]}
    assert texts(corpus(read, packed)) == [("1", {"de": "eins"})]


def test_a_side_may_be_written_otherwise_than_its_direction(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "parallel_text", "files": "{source}-{target}/{component}.{language}"}
    files = {"en-pt_BR/a.en": "1\n", "en-pt_BR/a.pt-BR": "um\n", "en-pt_BR/a.fr": "un\n"}
    opened = corpus(read, files)
    assert texts(opened) == [("1", {"pt-BR": "um"})]
    assert opened.skipped == {"file of a language that is none of its direction, first at en-pt_BR/a.fr": 1}


def test_spellings_in_tables(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "json_tables", "files": "{component}/{language}.json", "key_language": "en"}
    files = {f"{part}/en.json": '{"a": "one"}' for part in "xy"}
    files |= {"x/no.json": '{"a": "en"}', "y/nb.json": '{"a": "ett"}'}
    assert texts(corpus(read, files)) == [("one", {"nb": "en"}), ("one", {"nb": "ett"})]
    with pytest.raises(UserError, match="nb and no are all nb, for the same texts"):
        corpus(read, files | {"x/nb.json": "{}"})


def test_spellings_in_a_database(corpus: Callable[..., CorpusReader], tmp_path: Path) -> None:
    rows = [("en", "p", "1", "one"), ("no", "p", "1", "en"), ("en", "p", "2", "two"), ("nb", "p", "2", "to")]
    read = {
        "kind": "sqlite",
        "files": "a.db",
        "key_language": "en",
        "query": "SELECT language, component, key, text FROM t",
    }
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (language, component, key, text)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    assert texts(corpus(read, {})) == [("one", {"nb": "en"}), ("two", {"nb": "to"})]
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("INSERT INTO t VALUES ('nb', 'p', '1', 'ein')")
    with pytest.raises(UserError, match="nb and no are all nb, for the same texts"):
        corpus(read, {})


def test_spellings_in_columns(corpus: Callable[..., CorpusReader]) -> None:
    read = {"kind": "jsonl", "files": "*.jsonl"}
    files = {"a.jsonl": '{"en": "one", "no": "ett hus"}\n', "b.jsonl": '{"en": "two", "nb": "to hus"}\n'}
    assert texts(corpus(read, files)) == [("one", {"nb": "ett hus"}), ("two", {"nb": "to hus"})]
    with pytest.raises(UserError, match=r"`languages: \{no: null\}`"):
        corpus(read, files | {"c.jsonl": '{"en": "one", "no": "ett hus", "nb": "ett hus"}\n'})


# Counts of what is left out


def test_messages_that_are_not_used_are_counted(corpus: Callable[..., CorpusReader]) -> None:
    header = '#, fuzzy\nmsgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    fuzzy = '#, fuzzy\nmsgid "Two"\nmsgstr "Drei"\n\n'
    content = f'{header}msgid "One"\nmsgstr "Eins"\n\n{fuzzy}msgid "Four"\nmsgstr ""\n'
    opened = corpus({"kind": "gettext", "files": "{language}.po"}, {"de.po": content})
    assert texts(opened) == [("One", {"de": "Eins"})]
    assert opened.skipped == {
        "fuzzy message, first at de.po": 1,
        "message without translation, first at de.po: Four": 1,
    }


def test_texts_of_a_database_that_are_replaced_are_counted(corpus: Callable[..., CorpusReader], tmp_path: Path) -> None:
    rows = [("en", "p", "1", "one"), ("de", "p", "1", "eins"), ("de", "p", "1", "einmal")]
    query = "SELECT language, component, key, text FROM t"
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (language, component, key, text)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    opened = corpus({"kind": "sqlite", "files": "a.db", "key_language": "en", "query": query}, {})
    assert len(texts(opened)) == 1
    assert opened.skipped == {"earlier text of the same language and key, first at de p 1": 1}
