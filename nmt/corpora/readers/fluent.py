"""The strings of Fluent files (.ftl), by Mozilla's own parser.

Variables and references stay as the file writes them, `{ $user }`. Of a select expression every variant gives a text of
its own, by the variant's name, so that those of two languages pair; the default one has no name, as a text without
variants has none.
"""

from collections.abc import Iterator
from typing import Any

from nmt.corpora.readers.localised_string import LocalisedString, localisation_library

NO_FLUENT = "entry that is no valid Fluent"


def parse_fluent(content: bytes) -> Iterator[LocalisedString]:
    """Yield the values of messages and terms and of their attributes; an entry that is damaged is left out."""
    with localisation_library("Fluent's .ftl"):
        from fluent.syntax import FluentParser, ast
    text = content.decode("utf-8-sig")
    for entry in FluentParser(with_spans=True).parse(text).body:
        if isinstance(entry, ast.Junk):
            line = text.count("\n", 0, entry.span.start if entry.span else 0) + 1
            yield LocalisedString((f"line {line}",), "", NO_FLUENT)
        elif isinstance(entry, ast.Message | ast.Term):
            name = f"-{entry.id.name}" if isinstance(entry, ast.Term) else entry.id.name
            parts = [((name,), entry.value), *(((name, one.id.name), one.value) for one in entry.attributes)]
            for key, pattern in parts:
                if pattern is not None:
                    yield from _variants(key, pattern)


def _variants(key: tuple[str, ...], pattern: Any) -> Iterator[LocalisedString]:
    for name in dict.fromkeys(("", *_names(pattern))):
        yield LocalisedString((*key, "", name), _text(pattern, name))


def _selections(pattern: Any) -> Iterator[Any]:
    from fluent.syntax import ast

    for element in pattern.elements:
        if isinstance(element, ast.Placeable) and isinstance(element.expression, ast.SelectExpression):
            yield element.expression


def _names(pattern: Any) -> Iterator[str]:
    """Yield the names of the variants of a pattern that are no default."""
    for selection in _selections(pattern):
        for variant in selection.variants:
            if not variant.default:
                yield _name(variant)
            yield from _names(variant.value)


def _name(variant: Any) -> str:
    return str(getattr(variant.key, "name", None) or variant.key.value)


def _text(pattern: Any, name: str) -> str:
    """Return the text of a pattern in which every select expression has the variant of a name, or else its default."""
    from fluent.syntax import ast
    from fluent.syntax.serializer import serialize_placeable

    parts = []
    for element in pattern.elements:
        if isinstance(element, ast.TextElement):
            parts.append(element.value)
        elif isinstance(element.expression, ast.StringLiteral):
            parts.append(element.expression.parse()["value"])
        elif isinstance(element.expression, ast.SelectExpression):
            variants = element.expression.variants
            chosen = next((one for one in variants if _name(one) == name), None)
            parts.append(_text((chosen or next(one for one in variants if one.default)).value, name))
        else:
            parts.append(serialize_placeable(element))
    return "".join(parts)
