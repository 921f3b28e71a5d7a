"""Normalisation, and every reason for which a text or a pair is not kept."""

import itertools
import sys
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt import languages
from nmt.config import CleanConfig
from nmt.corpora.clean import Filters, Reason, digit_template, fold, normalise
from nmt.corpora.clean.filters import digit_overlap, same_hosts
from nmt.corpora.clean.overlap import OverlapIndex
from nmt.corpora.clean.scripts import writing
from nmt.errors import UserError

CLEAN = CleanConfig()


def reject_key(text: str, clean: CleanConfig = CLEAN, language: str = "en") -> Reason | None:
    return Filters(clean).key(text, language)


def reject_translation(key: str, text: str, clean: CleanConfig = CLEAN, language: str = "de") -> Reason | None:
    return Filters(clean).translation(key, "en", text, language)


KEY = "The device is already configured"
# Pieces that interact: what one step leaves may be work for another.
PIECES = st.sampled_from(
    [
        "&",
        "amp;",
        "lt",
        ";",
        "#38;",
        "#x26;",
        "&nbsp;",
        "\u00ad",
        "\u200b",
        "\ufeff",
        "\u037e",
        "e",
        "\u0301",
        " ",
        "\t",
        "\u3000",
    ]
)
TEXT = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


@given(TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("cafe\u0301", "café"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("a &amp;lt; b", "a < b"),  # escaped twice
        ("a &am\u200bp; b", "a & b"),  # an entity that only the removal of a zero-width space completes
        ("Donau\u00addampf", "Donaudampf"),
        ("\ufeffone\u200b \u2060two\u200e", "one two"),
        ("\u202bשלום\u202c", "שלום"),
        (" one\u00a0two\n\tthree\u3000", "one two three"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian is spelt with the zero-width non-joiner
        ("", ""),
        (" \u200b ", ""),
    ],
)
def test_normal_form(raw: str, normal: str) -> None:
    assert normalise(raw) == normal


PLACEHOLDERS = [
    "%s", "%d", "%5.2f", "%-3d", "%ld", "%1$s", "%(count)d", "%@", "%2",
    "{name}", "{}", "{{ states }}", "${name}", "$name", "[%key:common::config_flow::error%]",
    "<b>", "</a>", "<name>", "&foo;", "https://example.org", "rtsp://camera", "www.example.org",
    "[here](/config)", "[the docs](https://example.org)", "![](image.png)", "[link][1]", "`code`", "panel::notfound",
]  # fmt: skip


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_placeholders_are_rejected_on_either_side(placeholder: str) -> None:
    text = f"Please read {placeholder} before you continue"
    assert reject_key(text, CLEAN) is Reason.PLACEHOLDER
    assert reject_translation(KEY, text, CLEAN) is Reason.PLACEHOLDER


@pytest.mark.parametrize(
    "text",
    [
        "The battery is at 80 % now",
        "The price is 5 € or 5 US$ a month",
        "It is an e-mail to me@example.org",
        "Time 12:30: start, then stop [optional] (or not)",
        "Press **Submit** & wait; 5 > 4 and 3 < 4",
    ],
)
def test_ordinary_punctuation_is_kept(text: str) -> None:
    assert reject_key(text, CLEAN) is None


@pytest.mark.parametrize("code", [0x00, 0x1B, 0x7F, 0xD800, 0xE000, 0xFFFD])
def test_control_characters_are_rejected_on_either_side(code: int) -> None:
    text = normalise(f"The device {chr(code)}x is already configured")
    assert reject_key(text, CLEAN) is Reason.CONTROL
    assert reject_translation(KEY, text, CLEAN) is Reason.CONTROL


def test_empty_sides_are_rejected() -> None:
    assert reject_key("", CLEAN) is Reason.EMPTY
    assert reject_translation(KEY, "", CLEAN) is Reason.EMPTY


@given(st.integers(1, 80))
def test_words_of_the_key_are_bounded_on_both_ends(words: int) -> None:
    reason = reject_key(" ".join(["word"] * words), CleanConfig(max_repeated_words=None))
    assert reason is (Reason.TOO_SHORT if words < 4 else Reason.TOO_LONG if words > 60 else None)


def test_a_short_translation_of_a_long_enough_text_is_kept() -> None:
    assert reject_translation(KEY, "Gerät konfiguriert", CLEAN) is None


@given(letters=st.integers(0, 20), others=st.integers(0, 20))
def test_few_letters(letters: int, others: int) -> None:
    text = "1 2 3 " + "a" * letters + "7" * (others + 1)
    share = letters / (letters + others + 4)
    expected = Reason.FEW_LETTERS if share < 0.6 else None
    assert reject_key(text, CleanConfig(max_repeated_characters=None)) is expected


def test_letters_of_any_script_count() -> None:
    assert reject_key("Устройство уже было настроено", language="ru") is None
    assert reject_key("डिवाइस को पहले से ही कॉन्फ़िगर किया गया है", language="hi") is None  # vowels are marks


def test_an_untranslated_text_is_a_copy() -> None:
    assert reject_translation(KEY, KEY, CLEAN) is Reason.COPY


@given(st.integers(1, 200))
def test_length_ratio_is_of_characters_and_open_at_both_ends(length: int) -> None:
    clean = CleanConfig(max_repeated_characters=None)
    key = "a" * 40
    assert reject_translation(key, "é" * length, clean) == (None if 1 / 4 < length / 40 < 4 else Reason.LENGTH_RATIO)
    assert (
        reject_translation(key, "é" * length, CleanConfig(max_length_ratio=None, max_repeated_characters=None)) is None
    )


@given(st.text(max_size=30), st.lists(st.sampled_from("0123456789"), min_size=1, max_size=3).map("".join))
def test_texts_that_differ_only_in_digits_have_one_template(text: str, digits: str) -> None:
    assert digit_template(f"{text}x7x") == digit_template(f"{text}x{digits}x")
    assert digit_template(digit_template(text)) == digit_template(text)


def test_templates_keep_other_differences() -> None:
    assert digit_template("Button 1") != digit_template("Buttons 1")
    assert digit_template("Port 1.5") == digit_template("Port 10.25") != digit_template("Port 1")


@given(TEXT, TEXT)
def test_no_text_makes_the_checks_fail(key: str, text: str) -> None:
    key, text = normalise(key), normalise(text)
    for language in ("en", "th", "und"):
        if reject_key(key, CLEAN, language) is None:
            assert reject_translation(key, text, CLEAN, language) in {None, *Reason}


# Article 1 of the Universal Declaration of Human Rights, first sentence.
ARTICLE = "All human beings are born free and equal in dignity and rights."
ARTICLES = {
    "zh-Hans": "人人生而自由,在尊严和权利上一律平等。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "th": "มนุษย์ทั้งปวงเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "lo": "ມະນຸດເກີດມາມີສິດເສລີພາບ ແລະ ສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ ແລະ ທາງສິດດ້ວຍມະໂນທຳ",
    "km": "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងភាពស្មើគ្នាក្នុងសិទ្ធិនិងសេចក្ដីថ្លៃថ្នូរ។",
    "my": "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခါဖြင့် လည်းကောင်း၊ တူညီလွတ်လပ်သော အခွင့်အရေးများဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "am": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "ta": "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும், உரிமைகளிலும் சமமானவர்கள்.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "ka": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "zu": "Bonke abantu bazalwa bekhululekile belingana ngesithunzi nangamalungelo.",
}


@pytest.mark.parametrize("language", ARTICLES)
def test_real_sentences_of_any_script_are_kept_on_either_side(language: str) -> None:
    text = ARTICLES[language]
    strict = CleanConfig(max_length_ratio=1.9, min_script=0.9)
    assert Filters(strict).translation(ARTICLE, "en", text, language) is None
    assert Filters(strict).key(text, language) is None
    assert Filters(strict).translation(text, language, ARTICLE, "en") is None
    assert 5 <= writing(language).words(text) <= 21
    wrong = "ru" if language != "ru" else "el"
    assert reject_translation(ARTICLE, text, language=wrong) is Reason.SCRIPT


@pytest.mark.parametrize(
    ("language", "text", "share"),
    [
        ("ja", "Google Calendar API を有効にする", 6 / (6 + 17 / 4)),  # names stay Latin
        ("zh-Hans", "This was not translated at all 是", 1 / (1 + 25 / 4)),
        ("de", "Der Winkel α ist klein", 17 / 18),
        ("sr", "Ово је двојезично ovde", 15 / (15 + 4 / 4)),
        ("hi", "कि", 1.0),
        ("en", "12:30 ... ?", 0.0),
        ("ja", "ｱﾗｰﾑ", 1.0),
        ("und", "שלום", 1.0),  # a language that is not known
    ],
)
def test_share_of_letters_in_the_script(language: str, text: str, share: float) -> None:
    assert writing(language).share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("left", "right", "share"),
    [
        ("1,234.50 $", "1.234,50 $", 1.0),
        ("in 1998", "في ١٩٩٨", 1.0),
        ("from 1998 on", "seit 1989", 1.0),  # only as many of each digit
        ("call 911", "call 112", 2 / 3),
        ("at 5 PM", "um 17 Uhr", 1.0),  # too few
        ("three hundred", "300", 1.0),  # spelt out
        ("2 of 28", "2", 1 / 3),
        ("none", "keine", 1.0),
    ],
)
def test_digits_in_common(left: str, right: str, share: float) -> None:
    assert digit_overlap(left, right) == digit_overlap(right, left) == pytest.approx(share)
    key, text = f"The number of it is {left}", f"Die Zahl dafür ist {right}"
    assert reject_translation(key, text) is (Reason.NUMBERS if share < 0.5 else None)
    assert reject_translation(key, text, CleanConfig(min_digit_overlap=0)) is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("see https://www.example.org/en", "siehe http://example.org/de", True),
        ("mail me@Example.org", "an mich@example.org", True),
        ("mail me@example.org", "an mich", False),
        ("see www.example.org", "siehe www.example.de", False),
        ("a @ b", "a", True),
    ],
)
def test_hosts(left: str, right: str, same: bool) -> None:
    assert same_hosts(left, right) is same_hosts(right, left) is same
    clean = CleanConfig(placeholders=False)
    assert reject_translation(f"Please {left} now", f"Bitte {right} jetzt", clean) is (
        None if same else Reason.ADDRESSES
    )


@pytest.mark.parametrize(
    ("text", "language", "repeated"),
    [
        ("Nein, nein, das geht so nicht", "de", False),
        ("nein nein nein Nein nein oder doch", "de", True),
        ("nein nein nein nein oder nein", "de", False),
        ("wahrscheinlich" + "!" * 16, "de", True),
        ("wahrscheinlich" + "!" * 15, "de", False),
        ("哈哈哈哈哈，这不是真的", "zh-Hans", False),
        ("测试测试测试测试测试", "zh-Hans", True),
    ],
)
def test_repeated_words_and_characters(text: str, language: str, repeated: bool) -> None:
    clean = CleanConfig(max_length_ratio=None)
    assert reject_translation(KEY, text, clean, language) is (Reason.REPEATED if repeated else None)
    free = CleanConfig(max_length_ratio=None, max_repeated_characters=None, max_repeated_words=None)
    assert reject_translation(KEY, text, free, language) is None


def test_bounds_on_characters_are_in_characters_of_english() -> None:
    anything = {"max_length_ratio": None, "max_repeated_characters": None, "max_repeated_words": None}
    clean = CleanConfig(min_characters=10, max_characters=40, **anything)
    for language, letter, factor in (("de", "ä", 1.0), ("zh-Hans", "字", 0.27)):
        for length, reason in ((9, Reason.TOO_SHORT), (12, None), (36, None), (45, Reason.TOO_LONG)):
            assert reject_translation(KEY, letter * round(length * factor), clean, language) is reason


def test_filters_that_are_off() -> None:
    off = CleanConfig(control_characters=False, placeholders=False, copies=False, min_script=0)
    assert reject_translation(KEY, KEY, off) is None
    assert reject_translation(KEY, "Das Gerät <b>\x1b</b> steht", off) is None
    assert reject_translation(KEY, "Устройство уже было настроено", off) is None
    assert reject_translation(KEY, "Das Gerät \ud800 steht hier", off) is Reason.CONTROL  # cannot be written at all


def test_compatibility_forms() -> None:
    clean = Filters(CleanConfig(unicode="NFKC"))
    assert clean.normalise("ﬁne Ｗｉｆｉ ½") == "fine Wifi 1⁄2"
    assert Filters(CLEAN).normalise("ﬁne Ｗｉｆｉ ½") == "ﬁne Ｗｉｆｉ ½"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Press the Button 12!", "press “the button 7”", True),
        ("हि", "ही", False),  # marks are vowels
        ("می‌خواهم", "میخواهم", True),
        ("Straße", "STRASSE", True),
        ("don't", "dont", False),
    ],
)
def test_folded_forms(left: str, right: str, same: bool) -> None:
    assert (fold(left) == fold(right)) is same


def test_overlap_is_measured_on_letters_where_there_are_no_spaces() -> None:
    index = OverlapIndex.build([ARTICLES["zh-Hans"]], 3, 0.7)
    near, far = ARTICLES["zh-Hans"].replace("一律", "完全"), "人人有权享有生命、自由和人身安全。"
    assert index.overlapping([near, far, ARTICLES["zh-Hans"], "", "人"]).tolist() == [True, False, True, False, False]


def test_grams_that_stand_everywhere_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.corpora.clean.overlap.MOST_TEXTS_OF_A_GRAM", 5)
    index = OverlapIndex.build([f"enter the code of the {word}" for word in "abcdefgh"], 3, 0.9)
    assert index.overlapping(["enter the code of the z", "of the c"]).tolist() == [False, True]


def test_a_large_index_is_a_sample() -> None:
    words = ["".join(letters) for letters in itertools.product("abcdefghijklm", repeat=3)]
    texts = [" ".join(words[i : i + 9]) for i in range(2000)]
    index = OverlapIndex.build(texts, 3, 0.8, most_grams=3000)
    assert 500 < len(index.hashes) <= 3000
    found = index.overlapping(texts)
    assert found.mean() > 0.5
    assert not index.overlapping(["nothing of this is in any of them", "aab aaa"]).any()


def test_identification_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(
        UserError, match=r"data.clean.language_confidence needs py3langid: pip install 'nmt-moe\[langid\]'"
    ):
        Filters(CleanConfig(language_confidence=0.9))


def test_identification_asks_for_sure_answers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that takes every text for German, at 0.9."""

    class Model:
        nb_classes = ("de", "en", "zh")

        @staticmethod
        def from_model_file(name: str, norm_probs: bool) -> "Model":
            assert norm_probs
            return Model()

        def classify(self, text: str) -> tuple[str, float]:
            return "de", 0.9

    module = SimpleNamespace(MODEL_FILE="model", LanguageIdentifier=Model)
    monkeypatch.setitem(sys.modules, "py3langid", SimpleNamespace(langid=module))
    monkeypatch.setitem(sys.modules, "py3langid.langid", module)
    sure, unsure = (CleanConfig(language_confidence=least) for least in (0.9, 0.95))
    assert reject_key(KEY, sure) is Reason.LANGUAGE
    assert reject_key(KEY, unsure) is None
    assert reject_key("This is too short", sure) is None
    text = "Das Gerät ist schon eingerichtet"
    for language, reason in (("de", None), ("en", Reason.LANGUAGE), ("nds", None)):
        assert reject_translation(KEY, text, sure, language) is reason


@pytest.mark.parametrize("language", languages.all_languages(), ids=lambda language: language.code)
def test_the_script_of_every_language_is_known(language: languages.Language) -> None:
    """A text in the language's own letters is in its script, and one in letters of another script is not."""
    assert writing(language.code).share(language.native) == 1.0, language.native
    other = "Ελληνικά" if language.script != "Grek" else "русский"
    assert writing(language.code).share(other) == 0.0
