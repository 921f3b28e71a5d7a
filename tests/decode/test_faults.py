"""Loops and changed digits of translations: found where there are some, and not in text as people write it."""

import pytest

from nmt.decode.digits import changed_digits
from nmt.decode.loops import Loop, find_loop


@pytest.mark.parametrize(
    ("source", "translation", "loop"),
    [
        ("Aus", "Offffffft", Loop("f", 7)),
        ("Türen", "Doorororor", Loop("or", 4)),
        ("Er schläft.", "The the The the dog", Loop("the", 4)),
        ("Ein Gerät", "a device of, a device of a device of", Loop("adeviceof", 3)),
        ("Kein Gerät", "to the device to the device", Loop("to the device", 2)),
        ("Uhrzeit", "H:Min:Min:Min:Min", Loop("min", 4)),
        ("再见", "哈哈哈哈哈", Loop("哈", 5)),
        ("Fertig.", "Done!!!!!!!", Loop("!", 7)),
        ("haha", "hahahahahahahaha", Loop("ha", 8)),  # far more often than its source
    ],
)
def test_loops_are_found(source, translation, loop):
    assert find_loop(source, translation) == loop
    assert find_loop(translation, translation) is None


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("hahaha", "jajajaja"),
        ("ha ha ha ha", "hahahaha"),
        ("Nein, nein, nein!", "No no no no no!"),
        ("Neeeeein", "Nooooo"),
        ("Kapitel 1 ....... 5", "Chapter 1 ............ 5"),
        ("Format JJJJ-MM-TT", "format YYYY-MM-DD"),
        ("Channel 1, 2, 3", "Kanal 1, Kanal 2, Kanal 3"),
        ("1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1"),
        ("step by step by step", "Schritt für Schritt für Schritt"),
        ("The inland navigation", "Die Schifffahrt der Flussschiffe"),
        ("They make them eat", "nakakakain"),
        ("He works", "काका के काम का"),  # marks between the letters
        ("Group ID. Object ID.", "Dies ist die Objekt-ID der Gruppe. Der Gruppe gehört sie."),
        ("", ""),
    ],
)
def test_text_that_repeats_itself_is_no_loop(source, translation):
    assert find_loop(source, translation) is None
    assert find_loop(translation, source) is None


@pytest.mark.parametrize(
    ("source", "translation", "changed"),
    [
        ("Nummer 12345", "number 12355", ["-12345", "+12355"]),
        ("Kanal 1", "channel 2", ["-1", "+2"]),
        ("PM2.5", "PM25", ["-2", "-5", "+25"]),
        ("14 Tage", "days", ["-14"]),
        ("Tage", "14 days", ["+14"]),
        ("7 7", "7 7 77", ["+77"]),
        ("١٢٣", "124", ["-123", "+124"]),
    ],
)
def test_changed_digits_are_found(source, translation, changed):
    assert changed_digits(source, translation) == changed


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("12.345,6 kg", "12,345.6 kg"),
        ("12 345", "12345"),
        ("1,23,456", "123,456"),
        ("1\u202f000", "1,000"),
        ("١٢٣ و ۴۵", "123 and 45"),
        ("१०", "10"),
        ("5 Dateien", "five files"),
        ("drei", "3"),
        ("10 von 20", "20, of them 10"),
        ("m²", "m2"),
        ("", ""),
    ],
)
def test_numbers_that_are_written_otherwise_are_not_changed(source, translation):
    assert changed_digits(source, translation) == []
    assert changed_digits(translation, source) == []
