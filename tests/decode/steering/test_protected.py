"""Text that is kept: which spans are found, and what is repaired in a translation."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.decode.steering.protected import ProtectedText, compile_kept_pattern, repair_spans
from nmt.errors import UserError

KNOWN = ProtectedText()


def spans(text, rules=KNOWN):
    return [span.text for span in rules.find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://a.b/c?d=1&e=%20x. (http://x.y/z_(q))", ["https://a.b/c?d=1&e=%20x", "http://x.y/z_(q)"]),
        ("www.foo.de, me@x.org; mailto:a@b.c", ["www.foo.de", "me@x.org", "mailto:a@b.c"]),
        ("访问http://a.b/c。谢谢 访问www.a.cn吧", ["http://a.b/c", "www.a.cn"]),
        ("https://de.wikipedia.org/wiki/Größe!", ["https://de.wikipedia.org/wiki/Größe"]),
        ("{name} {0} {}{{x}} {{ y.z }} %{n} #{k}", ["{name}", "{0}", "{}", "{{x}}", "{{ y.z }}", "%{n}", "#{k}"]),
        ("%s %d %1$d %(name)s ${x}", ["%s", "%d", "%1$d", "%(name)s", "${x}"]),
        ("%@ %-5.2f %% %1 %PATH%", ["%@", "%-5.2f", "%%", "%1", "%PATH%"]),
        ("%s%s %d个文件 %dpx %lld", ["%s", "%s", "%d", "%d", "%lld"]),
        ("100%ig, 100 %ige, 50% of, 100% sicher, $5", []),
        ('<0>a</0> <br/> <a href="x y">t</a> </b:c>', ["<0>", "</0>", "<br/>", '<a href="x y">', "</a>", "</b:c>"]),
        ("a < b and c > d, a <b and c> d, {see note}, {n, plural, one {# file} other {# files}}", []),
        ("{when, date, short} __PH1__ $name US$5 a\\nb", ["{when, date, short}", "__PH1__", "$name", "\\n"]),
        ("https://a.b/{id}/x, http://a.b/c?d=1.{name}.", ["https://a.b/", "{id}", "http://a.b/c?d=1", "{name}"]),
        ("a.b@c, @me, 3:4, C:/x, e.g. this", []),
        ("", []),
    ],
)
def test_known_forms(text, expected):
    assert spans(text) == expected


def test_terms_and_patterns():
    rules = ProtectedText(known=False, terms=("ACME", "ACME Cloud"), pattern=compile_kept_pattern(r"[A-Z]{2}-\d+|x*"))
    assert spans("ACME Cloud of ACME, ACMES, acme: AB-12 {name}", rules) == ["ACME Cloud", "ACME", "AB-12"]


def test_a_pattern_that_is_none_is_one_line():
    with pytest.raises(UserError, match="is not a regular expression"):
        compile_kept_pattern("(")


@pytest.mark.parametrize(
    ("source", "translation", "text", "missing", "surplus"),
    [
        ("{name}: %s", "%s: {name}", "%s: {name}", (), ()),
        ("{name}: %s", "{ Name }: % S", "{name}: %s", (), ()),
        ("%s{n}", "％s ｛n｝", "%s {n}", (), ()),
        ("http://a.b/c", "siehe http: //a.b/C.", "siehe http://a.b/c.", (), ()),
        ("{name} of {file}", "{nombre} de {file}", "{name} de {file}", (), ()),
        ("{user} {file}", "{files} {users}", "{file} {user}", (), ()),
        ("see www.a.de", "siehe www.b.de/x", "siehe www.a.de", (), ()),
        ("{name}", "hallo", "hallo", ("{name}",), ()),
        ("%s and %s", "%s", "%s", ("%s",), ()),
        ("%s", "%s %s", "%s %s", (), ("%s",)),
        ("a", "{x}", "{x}", (), ("{x}",)),
        ("{a} {b}", "{c}", "{c}", ("{a}", "{b}"), ("{c}",)),  # which of the two it was meant to be is not known
        ("100 %s", "100 % sicher", "100 % sicher", ("%s",), ()),
    ],
)
def test_repairs(source, translation, text, missing, surplus):
    repair = repair_spans(KNOWN.find(source), translation, KNOWN.find)
    assert repair == (text, text != translation, missing, surplus)


def test_terms_are_never_exchanged_for_others():
    rules = ProtectedText(known=False, pattern=re.compile(r"[A-Z]{2}\d"))
    repair = repair_spans(rules.find("AB1"), "XY9", rules.find)
    assert repair == ("XY9", False, ("AB1",), ("XY9",))


PIECES = st.lists(st.sampled_from(["{a}", "%s", "<0>", "http://a.b", " ", "x ", "ü", ".", "{ A }", "％s", "% s "]))


@settings(max_examples=100, deadline=None)
@given(PIECES, PIECES)
def test_repairs_never_lose_a_span_and_settle(source, translation):
    wanted, text = KNOWN.find("".join(source)), "".join(translation)
    before = repair_spans(wanted, text, KNOWN.find)
    lacking = len(before.missing)
    found = spans(text)
    assert lacking <= sum(
        max(0, [s.text for s in wanted].count(one) - found.count(one)) for one in {s.text for s in wanted}
    )
    assert repair_spans(wanted, before.text, KNOWN.find).missing == before.missing
