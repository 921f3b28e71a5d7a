"""JSON lines: one object a line, of which one field is translated into another; all other fields are kept."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.decode.documents.units import DocumentLine, DocumentUnit
from nmt.decode.translator import Translation
from nmt.errors import UserError, did_you_mean

RESULT = "translation"


@dataclass(frozen=True)
class JsonLines:
    """JSON lines.

    Attributes:
      field: the field with the text, `a.b` for the field b of the object a: a text, a list of texts, or null.
      result: the field that gets the translation; None: `translation`, which must not be there yet.
      describe: further fields of a translation, such as its score.
    """

    field: str
    result: str | None
    describe: Callable[[Translation], Mapping[str, Any]]

    def units(self, lines: Iterable[DocumentLine]) -> Iterator[DocumentUnit]:
        """Yield every object; blank lines are copied.

        Raises:
          UserError: a line is not a JSON object, or has no such field; or the field has something else than text.
        """
        for line in lines:
            if not line.text.strip():
                yield DocumentUnit.copied(line)
                continue
            record = _record(line)
            value = self._value(record, line)
            if not isinstance(value, str | None) and not _is_texts(value):
                raise UserError(f"line {line.number}: the field {self.field!r} is not a text, nor a list of texts")
            if self.result is None and RESULT in record:
                raise UserError(
                    f"line {line.number} has a field {RESULT!r} already: --json-result says which field to write"
                )
            texts = tuple(value) if isinstance(value, list) else () if value is None else (value,)
            yield DocumentUnit(line.number, line.size, 1, texts, self._composer(line, value))

    def _value(self, record: dict[str, Any], line: DocumentLine) -> Any:
        if self.field in record:
            return record[self.field]
        value: Any = record
        for key in self.field.split("."):
            if not isinstance(value, dict) or key not in value:
                known = list(value) if isinstance(value, dict) else []
                has = f"; it has {', '.join(map(repr, known[:10]))}" if known else ""
                near = did_you_mean(key, known)
                raise UserError(f"line {line.number} has no field {self.field!r}{near}{has} (--json-field)")
            value = value[key]
        return value

    def _composer(self, line: DocumentLine, value: str | list[str] | None) -> Callable[[Sequence[Translation]], bytes]:
        def compose(translations: Sequence[Translation]) -> bytes:
            added: dict[str, Any] = {}
            texts = [translation.text for translation in translations]
            described = [self.describe(translation) for translation in translations]
            if isinstance(value, list):
                result: Any = texts
                added |= {key: [one[key] for one in described] for key in (described[0] if described else ())}
            else:
                result = texts[0] if texts else None
                added |= described[0] if described else {}
            return line.mark.encode() + _added_fields(line.text, self.result or RESULT, result, added) + line.end

        return compose


def _record(line: DocumentLine) -> dict[str, Any]:
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise UserError(f"line {line.number} is not JSON ({reason}); JSON lines have one object a line") from None
    if not isinstance(record, dict):
        raise UserError(f"line {line.number} is JSON, but not an object; JSON lines have one object a line")
    return record


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _added_fields(text: str, field: str, result: Any, added: Mapping[str, Any]) -> bytes:
    """Return an object with further fields. Where these are new, the text of the others stays as it is."""
    record = json.loads(text)
    path = [field] if field in record else field.split(".")
    if len(path) == 1 and not {field, *added} & record.keys():
        opening = text.rstrip()[:-1].rstrip()
        return f"{opening}{', ' if record else ''}{_dumped({field: result, **added})[1:]}".encode()
    place = record
    for key in path[:-1]:
        if not isinstance(place.get(key), dict):
            place[key] = {}
        place = place[key]
    place[path[-1]] = result
    return _dumped({**record, **added}).encode()


def _dumped(value: Any) -> str:
    """Return a value as JSON, with letters as they are; half a surrogate pair has to be escaped."""
    written = json.dumps(value, ensure_ascii=False)
    return written if _is_encodable(written) else json.dumps(value)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
