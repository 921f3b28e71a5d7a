"""The ceiling of a perfect system: references that went through the vocabulary are scored 100 in every language."""

import functools
import unicodedata
from collections.abc import Iterator, Sequence

import pytest

from nmt import languages
from nmt.config import VocabConfig
from nmt.config.directions import expand_directions
from nmt.corpora.clean import normalise
from nmt.data.vocab import Vocabulary, learn
from nmt.evaluate.forms import ScoringForm
from nmt.evaluate.metrics import score
from nmt.evaluate.sets import Pair
from nmt.languages import Direction, parse_directions

MIX100 = sorted({code for one in parse_directions(expand_directions(("*-en", "en-*"), ("mix100",))) for code in one})
# Languages whose texts NFKC changes most, and some of further scripts.
OTHERS = ("lo", "bo", "yue", "te", "sat", "mni-Mtei", "dv")
LANGUAGES = [*MIX100, *(code for code in OTHERS if code not in MIX100)]

# The first words of the names of a script's characters.
NAMES = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hang": ("HANGUL",),
    "Hans": ("CJK", "FULLWIDTH", "IDEOGRAPHIC"),
    "Hant": ("CJK", "FULLWIDTH", "IDEOGRAPHIC", "BOPOMOFO"),
    "Hebr": ("HEBREW",),
    "Jpan": ("HIRAGANA", "KATAKANA", "HALFWIDTH", "FULLWIDTH"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Laoo": ("LAO",),
    "Latn": ("LATIN",),
    "Mlym": ("MALAYALAM",),
    "Mtei": ("MEETEI",),
    "Mymr": ("MYANMAR",),
    "Olck": ("OL",),
    "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thaa": ("THAANA",),
    "Thai": ("THAI",),
    "Tibt": ("TIBETAN",),
}
# Characters that NFKC changes, as people write them; the others are of one script each.
EVERYWHERE = (
    "The area is 10³ m², 2½ cups, №5 … ﬁne ™ ª º ŉ ﷺ ≠ ① Å Ω 😀👍🏽 ▁ a▁b \u2585 \u2047 <s> </s> <unk> <0x41> ㎏ ℃"
)
OWN = {
    "Armn": "Եվ ես և դու թեև ոչ ﬓ",
    "Beng": "য় ড় ঢ় নিয়ে পড়া ক্ত র\u200d্য",
    "Deva": "क़ ख़ ड़ ढ़ फ़ लड़का क\u200dष क\u200cष",
    "Hans": "你好，世界！你去哪儿？（是）：；",
    "Hant": "你好，世界！你去邊度？（係）：；「嘅」",
    "Hang": "한국어 ᄒᆞᆫ ㄱㄴㄷ 각 값",
    "Jpan": "本当ですか？（はい）ｶﾞ ガ か゚ ㍿ 漢字〜",
    "Laoo": "ນ້ຳ ຄຳ ໜ ໝ ຫນ",
    "Arab": "می\u200cخواهم ﻻ لا ۀ هٔ ئ",
    "Thai": "น้ำ ทำงานสำคัญ คำ",
    "Tibt": "བོད་ཡིག༌ དཀའ་ལས། གྷ ཱི ཷ",
    "Guru": "ਸ਼ ਖ਼ ਗ਼ ਜ਼ ਫ਼ ਲ਼",
    "Hebr": "שּׁ שׁ וֹ אַ ﬀ",
    "Latn": "ǆ ĳ ŀ é e\u0301 ợ Ɓ ƴ ʼn",
}
_WORD, _LINE = 6, 12  # characters of a word, words of a line


@functools.cache
def characters_by_name() -> dict[str, list[str]]:
    """All assigned characters below the supplementary ideographs, by the first word of their names."""
    found: dict[str, list[str]] = {}
    for one in map(chr, range(0x20000)):
        if unicodedata.category(one) not in ("Cn", "Cs", "Co", "Cc"):
            found.setdefault(unicodedata.name(one, "").partition(" ")[0].partition("-")[0], []).append(one)
    return found


def characters_of(script: str) -> list[str]:
    return [one for name in NAMES[script] for one in characters_by_name()[name]]


def in_groups(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@functools.cache
def lines_of(script: str) -> tuple[str, ...]:
    """Every character of a script in words and lines, and lines that people write, in the form of training text."""

    def raw() -> Iterator[str]:
        words = list(map("".join, in_groups(characters_of(script), _WORD)))
        yield from map(" ".join, in_groups(words, _LINE))
        yield EVERYWHERE
        yield OWN.get(script, EVERYWHERE)

    return tuple(text for text in map(normalise, raw()) if text)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def vocabulary(request, tmp_path_factory):
    return learnt(tmp_path_factory.mktemp("vocab"), request.param)


def learnt(folder, model_type="unigram", **keys) -> Vocabulary:
    """A vocabulary with pieces of all scripts, but far from all characters."""
    texts = {script: [*lines_of(script)[:1], *lines_of(script)[-1:] * 5] for script in NAMES}
    config = VocabConfig(size=2410, character_coverage=0.98, model_type=model_type, **keys)
    return learn(texts, LANGUAGES, config, folder / "vocab.model", seed=1)


def ceiling(vocabulary: Vocabulary, language: str):
    references = list(lines_of(languages.get(language).script))
    hypotheses = vocabulary.decode(vocabulary.encode(references))
    return score(Direction("en" if language != "en" else "de", language), references, hypotheses, references)


def test_every_script_is_there():
    assert len(MIX100) == 107
    scripts = {languages.get(code).script for code in LANGUAGES}
    assert scripts == set(NAMES)
    assert all(len(characters_of(script)) > 40 for script in scripts)


@pytest.mark.parametrize("script", NAMES)
def test_every_character_comes_back(vocabulary, script):
    references = list(lines_of(script))
    assert vocabulary.decode(vocabulary.encode(references)) == references


def test_a_perfect_system_is_scored_100_in_every_language(vocabulary):
    found = {code: ceiling(vocabulary, code) for code in LANGUAGES}
    assert {code: (round(cell.bleu, 6), round(cell.chrf, 6)) for code, cell in found.items()} == dict.fromkeys(
        LANGUAGES, (100.0, 100.0)
    )


def test_nfkc_would_keep_a_perfect_system_from_it(tmp_path):
    folding = learnt(tmp_path, normalisation="nfkc")
    for code in ("zh-Hans", "yue", "th", "lo", "hy", "ko", "ja", "ar"):
        cell = ceiling(folding, code)
        assert cell.chrf < 99.9, code


@pytest.mark.parametrize("script", NAMES)
def test_references_in_another_form_are_brought_to_it(script):
    form = ScoringForm("NFC", "normalised")
    for text in lines_of(script):
        for dirty in (
            unicodedata.normalize("NFD", text),
            f"\ufeff {text}\u200b",
            "\u200f" + text.replace(" ", "\u3000"),
        ):
            assert form.bring(Pair("x", dirty)).target == text
    assert form._replace(references="raw").bring(Pair(" \u00adx", " \u00ady")) == Pair("x", " \u00ady")
