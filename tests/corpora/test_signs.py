"""Simplified and Traditional Chinese, and the signs of text that was tokenised or cut into subwords."""

from pathlib import Path

import pytest
from recorded_progress import RecordedProgress
from toy_corpus import write_spec

from nmt.config import CleanConfig
from nmt.corpora.clean import Filters, Reason
from nmt.corpora.clean.han import han_share, only_in
from nmt.corpora.clean.signs import Sign, SignCount, SignCounter, find_signs
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.load import clean_corpora
from nmt.languages import parse_direction

# Article 1 of the Universal Declaration of Human Rights, and other sentences, in either script.
SIMPLIFIED = [
    "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "今天天气很好，我们一起出门去公园",
    "这本书讲述了国家的历史与文化发展",
]
TRADITIONAL = [
    "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
    "今天天氣很好，我們一起出門去公園",
    "這本書講述了國家的歷史與文化發展",
    "佢哋嘅屋企喺香港，今日唔使返學。",  # Cantonese
]
SHARED = ["你好", "明天早上", "上海和北京", "户口温泉着想台后里"]  # of both scripts, and forms of Hong Kong


@pytest.mark.parametrize(("texts", "own", "other"), [(SIMPLIFIED, "Hans", "Hant"), (TRADITIONAL, "Hant", "Hans")])
def test_texts_are_of_the_script_whose_characters_they_use(texts: list[str], own: str, other: str) -> None:
    for text in texts:
        assert (han_share(text, own), han_share(text, other)) == (1.0, 0.0), text


def test_characters_of_both_scripts_decide_nothing() -> None:
    for text in [*SHARED, "Latin 123", ""]:
        assert han_share(text, "Hans") == han_share(text, "Hant") == 1.0, text


def test_no_character_is_of_one_script_only_in_both() -> None:
    simplified, traditional = only_in("Hans"), only_in("Hant")
    assert not simplified & traditional
    # Unihan: pairs of kSimplifiedVariant and kTraditionalVariant.
    for pair in ("国國", "说說", "为為", "门門", "爱愛", "书書", "马馬", "车車", "们們", "这這"):
        assert pair[0] in simplified, pair
        assert pair[1] in traditional, pair


@pytest.mark.parametrize(
    ("language", "kept", "rejected"),
    [
        ("zh-Hans", SIMPLIFIED, TRADITIONAL),
        ("wuu", SIMPLIFIED, TRADITIONAL),
        ("yue-Hans", SIMPLIFIED, TRADITIONAL),
        ("zh-Hant", TRADITIONAL, SIMPLIFIED),
        ("yue", TRADITIONAL, SIMPLIFIED),
    ],
)
def test_chinese_in_the_other_script_is_rejected(language: str, kept: list[str], rejected: list[str]) -> None:
    filters = Filters(CleanConfig(max_length_ratio=None))
    key = "We all go out to the park today because the weather is good"
    assert [filters.translation(key, "en", text, language) for text in kept] == [None] * len(kept)
    assert {filters.translation(key, "en", text, language) for text in rejected} == {Reason.CHINESE}
    quoted = kept[1] + rejected[1][:4]
    assert filters.translation(key, "en", quoted, language) is None  # a name in the other script, say
    any_script = Filters(CleanConfig(max_length_ratio=None, min_script=0))
    assert any_script.translation(key, "en", rejected[0], language) is None


def test_japanese_and_korean_have_characters_of_both() -> None:
    filters = Filters(CleanConfig(max_length_ratio=None))
    key = "We all go out to the park today because the weather is good"
    assert filters.translation(key, "en", "國立公園で会社の学生と実験をする", "ja") is None


@pytest.mark.parametrize(
    ("language", "text"),
    [("sr", "Dobar dan, kako ste danas svi"), ("sr-Latn", "Добар дан, како сте данас сви"),
     ("uz", "Бугун ҳаво жуда яхши ва биз"), ("uz-Cyrl", "Bugun havo juda yaxshi va biz"),
     ("az", "Бу ҝүн һава чох јахшыдыр вә биз"), ("kk", "بۇگىن اۋا رايى وتە جاقسى بىز"),
     ("kk-Arab", "Бүгін ауа райы өте жақсы біз"), ("pa", "اج موسم بہت چنگا ہے تے اسیں")],
)  # fmt: skip
def test_other_languages_of_several_scripts_are_told_apart_by_letters(language: str, text: str) -> None:
    key = "The weather is very good today and we go out"
    assert Filters(CleanConfig()).translation(key, "en", text, language) is Reason.SCRIPT


@pytest.mark.parametrize(
    ("language", "text", "signs"),
    [
        ("de", "Das ist be@@ kannt", [Sign.PIECES]),
        ("de", "▁Das ▁ist ▁bekannt", [Sign.PIECES]),
        ("en", "It is a well @-@ known fact", [Sign.TOKENISED]),
        ("en", "He said &quot; no &quot;", [Sign.TOKENISED]),
        ("en", "I &apos;m here", [Sign.TOKENISED]),
        ("en", "I came , I saw", [Sign.TOKENISED]),
        ("en", "I came here .", [Sign.TOKENISED]),
        ("zh-Hans", "今天 天气 很 好 我们 出门", [Sign.TOKENISED]),
        ("ja", "今日 は 天気 が いい", [Sign.TOKENISED]),
        ("zh-Hans", "今天天氣很好", [Sign.CHINESE]),
        ("de", "17\tDas ist bekannt\t0.93", [Sign.COLUMNS]),
        ("de", "Das ist bekannt, nicht wahr?\t", []),
        ("fr", "Est-ce vrai ? Oui : bien sûr !", []),
        ("en", "Write to a@@b or use .NET ...", []),
        ("en", "Tom &amp; Jerry, and an e-mail@-address", []),
        ("zh-Hans", "今天天气很好 我们出门", []),
        ("ko", "오늘 날씨 가 좋다", []),
    ],
)
def test_signs_of_a_text(language: str, text: str, signs: list[Sign]) -> None:
    assert list(find_signs(text, language)) == signs


def test_few_texts_with_a_sign_are_no_reason_to_warn() -> None:
    assert not SignCount("c", "en", Sign.TOKENISED, 19, 100, "a .").warns
    assert SignCount("c", "en", Sign.TOKENISED, 20, 100, "a .").warns
    assert SignCount("c", "en", Sign.PIECES, 1, 100, "a@@ b").warns
    assert not SignCount("c", "en", Sign.PIECES, 1, 101, "a@@ b").warns


def test_a_person_is_warned_once_for_each_corpus_and_language(tmp_path: Path) -> None:
    words = ["katze", "hund", "apfel", "haus", "baum", "stuhl", "tisch", "lampe"]
    lines = [
        f"the {one} {number} is red and new\tder {one}@@ s {number} ist rot und neu" for number, one in enumerate(words)
    ]
    (tmp_path / "en-de.tsv").write_text("\n".join(lines) + "\n")
    values = {
        "name": "cut",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path)},
        "read": {"kind": "tsv", "files": "{source}-{target}.tsv"},
        "split": {"by": "text", "test": 0, "dev": 0},
    }
    directions = [parse_direction("de-en"), parse_direction("en-de")]
    for _ in range(2):  # the second time from the cache
        progress = RecordedProgress()
        corpus = clean_corpora([write_spec(tmp_path, values)], directions, CleanConfig(), progress, workers=1)
        assert isinstance(corpus, Corpus)
        assert [line for line in progress.lines if line.startswith("warning")] == [
            "warning: cut, de: 8 of 8 texts (100%) are cut into subwords, such as 'der katze@@ s 0 ist rot und neu'; "
            "undo it: delete `@@ `, or delete all spaces and then replace `▁` by a space"
        ]


def test_texts_that_are_not_cleaned_are_counted_too() -> None:
    counter = SignCounter("the test set")
    counter.add(["I came , I saw", "It is here ."], "en")
    counter.add(["Ich kam, ich sah"], "de")
    assert set(counter.languages) == {"en", "de"}
    assert counter.warnings() == ["the test set, en: 2 of 2 texts (100%) are tokenised, such as 'I came , I saw'"]
