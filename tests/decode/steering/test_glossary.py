"""Words and glossaries: which terms of a text are found, and every mistake of a glossary is one line."""

import pytest

from nmt.decode.steering.glossary import Glossary, Wording, parse_wordings
from nmt.decode.steering.words import capitalise, find_whole, is_in_capitals, is_whole, lower_each
from nmt.errors import UserError


def glossary(*lines):
    return Glossary.parse([line.encode() for line in lines], "terms.tsv")


def found(terms, text, taken=()):
    return [text[match.start : match.end] for match in terms.find(text, taken)]


@pytest.mark.parametrize(
    ("text", "term", "places"),
    [
        ("a server, Server; servers", "server", [(2, 8)]),
        ("server_2 xserver server", "server", [(17, 23)]),
        ("C++ or C#", "C++", [(0, 3)]),
        ("我的服务器很慢", "服务器", [(2, 5)]),
        ("हिन्दी", "हिन्द", []),  # a vowel sign belongs to its word
        ("(server)", "server", [(1, 7)]),
        ("abab", "ab", []),
        ("", "a", []),
        ("a", "", []),
    ],
)
def test_terms_are_whole_words(text, term, places):
    assert list(find_whole(text, term)) == places


def test_an_open_end_may_be_followed_by_letters_and_a_beginning_may_not_be_preceded_by_them():
    assert is_whole("servers", 0, 6, open_end=True)
    assert not is_whole("servers", 0, 6)
    assert not is_whole("xserver", 1, 7, open_end=True)


def test_case():
    assert lower_each("İSTANBUL") == "İstanbul"  # lower() would lengthen it
    assert [capitalise(word) for word in ("server", "ǆ", "ß", "", "3D")] == ["Server", "ǅ", "ß", "", "3D"]
    assert [is_in_capitals(word) for word in ("NATO", "A", "Nato", "12", "服务器")] == [
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("written", "wordings"),
    [
        ("Server", [("Server", False)]),
        (" a | b c ", [("a", False), ("b c", False)]),
        ("a*|b", [("a", True), ("b", False)]),
        (r"a\|b|c\*|d\\*", [("a|b", False), ("c*", False), ("d\\", True)]),
        ("a|", [("a", False), ("", False)]),
        ("*", [("", True)]),
    ],
)
def test_wordings(written, wordings):
    assert parse_wordings(written) == tuple(Wording(*one) for one in wordings)


def test_the_longest_term_wins_and_terms_do_not_overlap():
    terms = glossary("server\tServer", "cloud server\tWolkenrechner", "cloud\tWolke")
    assert found(terms, "A cloud server, a server, a cloud.") == ["cloud server", "server", "cloud"]


def test_case_of_terms():
    terms = glossary("May\tMai", "server\tServer", "US\tUSA")
    assert found(terms, "May I, MAY, may; Server SERVER; us US") == ["May", "MAY", "Server", "SERVER", "US"]


def test_a_term_with_capitals_is_preferred_to_one_in_lower_case():
    terms = glossary("apple\tApfel", "Apple\tApple")
    assert [match.entry.targets[0].text for match in terms.find("An apple of Apple")] == ["Apfel", "Apple"]


def test_wordings_follow_the_case_of_the_source():
    (entry,) = glossary("server\trechner|Server*").entries
    texts = [tuple(one.text for one in entry.wordings(written)) for written in ("server", "Server", "SERVER")]
    assert texts[0] == texts[1] == ("rechner", "Server", "Rechner")
    assert texts[2] == ("RECHNER", "SERVER", "rechner", "Server", "Rechner")
    assert [one.open_end for one in entry.wordings("server")] == [False, True, False]


def test_lines_of_one_term_add_up():
    terms = glossary("server|host\tServer", "server\tRechner", "", "  ")
    assert [[t.text for t in entry.targets] for entry in terms.entries] == [["Server", "Rechner"], ["Server"]]


def test_languages_without_spaces():
    assert found(glossary("服务器\tserver"), "重启服务器后") == ["服务器"]


def test_no_term_is_found_where_text_is_taken():
    assert found(glossary("server\tServer"), "https://server/ server", [(0, 15)]) == ["server"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"server", "terms.tsv line 2 has 1 column: a glossary has two, a source term and a target term"),
        (b"a\tb\tc", "terms.tsv line 2 has 3 columns"),
        (b"\tServer", "terms.tsv line 2 has an empty source term"),
        (b"server\t |x", "terms.tsv line 2 has an empty target term"),
        (b"server\t*", "terms.tsv line 2 has an empty target term"),
        (b"gr\xfc\xdf\tgreeting", "terms.tsv line 2 is not UTF-8"),
    ],
)
def test_mistakes_are_one_line(line, message):
    with pytest.raises(UserError) as error:
        Glossary.parse([b"one\teins", line], "terms.tsv")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_files(tmp_path):
    file = tmp_path / "terms.tsv"
    file.write_bytes("\ufeffserver\tServer\r\nhost\tWirt\r\n".encode())
    assert [(entry.source.text, entry.targets[0].text) for entry in Glossary.read(file).entries] == [
        ("server", "Server"),
        ("host", "Wirt"),
    ]
    file.write_bytes(b"\n")
    with pytest.raises(UserError, match="has no term"):
        Glossary.read(file)
    with pytest.raises(UserError, match="cannot read the glossary"):
        Glossary.read(tmp_path / "none.tsv")
