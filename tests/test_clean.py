"""Normalisation, and every reason for which a text or a pair is not kept."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config import CleanConfig
from nmt.data.clean import Reason, digit_template, normalise, reject_key, reject_translation

CLEAN = CleanConfig()
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
    reason = reject_key(" ".join(["word"] * words), CLEAN)
    assert reason is (Reason.TOO_SHORT if words < 4 else Reason.TOO_LONG if words > 60 else None)


def test_a_short_translation_of_a_long_enough_text_is_kept() -> None:
    assert reject_translation(KEY, "Gerät konfiguriert", CLEAN) is None


@given(letters=st.integers(0, 20), others=st.integers(0, 20))
def test_few_letters(letters: int, others: int) -> None:
    text = "1 2 3 " + "a" * letters + "7" * (others + 1)
    share = letters / (letters + others + 4)
    expected = Reason.FEW_LETTERS if share < 0.6 else None
    assert reject_key(text, CLEAN) is expected


def test_letters_of_any_script_count() -> None:
    assert reject_key("Устройство уже было настроено", CLEAN) is None


def test_an_untranslated_text_is_a_copy() -> None:
    assert reject_translation(KEY, KEY, CLEAN) is Reason.COPY


@given(st.integers(1, 200))
def test_length_ratio_is_of_utf8_bytes_and_open_at_both_ends(length: int) -> None:
    key = "a" * 40
    assert reject_translation(key, "é" * length, CLEAN) == (
        None if 1 / 4 < 2 * length / 40 < 4 else Reason.LENGTH_RATIO
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
    if reject_key(key, CLEAN) is None:
        assert reject_translation(key, text, CLEAN) in {None, *Reason}
