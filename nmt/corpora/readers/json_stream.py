"""JSON read from front to back: the objects of a list without the list, in memory that does not grow with it.

Each object is decoded by Python's own decoder; nothing else of a file is kept.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from typing import IO, Any

Keys = tuple[str, ...]

_CHUNK = 1 << 16  # bytes
_MOST_CHARACTERS = 1 << 24  # of one object
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+.0-9eE]*")
_DECODER = json.JSONDecoder()


class JsonStream:
    """The text of a file of JSON, as far as it is read.

    Args:
      file: UTF-8, with or without a byte-order mark.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._text, self._place = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._begun = self._ended = False

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._place)
            assert found is not None
            self._place = found.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Go behind a character.

        Raises:
          ValueError: there is another one.
        """
        if (found := self.peek()) != expected:
            raise ValueError(f"{found!r} where {expected!r} should be" if found else "it ends before its JSON does")
        self._place += 1

    def value(self) -> Any:
        """Return the next value, decoded.

        Raises:
          ValueError: it is no JSON, or too long.
        """
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                problem = error.msg  # the error itself would keep all of the text
            else:
                # The end of the text may cut a number, as behind "-5" or "-5e".
                cut = not isinstance(found, str | list | dict) and _NUMBER.fullmatch(self._text, end)
                if not cut or not self._more():
                    self._place = end
                    return found
                continue
            # What is wrong may be that the text ends here.
            waiting = len(self._text) - self._place
            if waiting > _MOST_CHARACTERS or not self._more(waiting):
                raise ValueError(problem)

    def key(self) -> str:
        """Return the key of an object's next member, and go to its value."""
        if self.peek() != '"':
            raise ValueError("a key of an object is no string")
        key = self.value()
        self.take(":")
        return str(key)

    def items(self) -> Iterator[None]:
        """Go from item to item of a list, each of which must be read before the next."""
        yield from self._parts("[", "]")

    def members(self) -> Iterator[str]:
        """Yield the keys of an object, the value of each of which must be read before the next."""
        for _ in self._parts("{", "}"):
            yield self.key()

    def _parts(self, start: str, end: str) -> Iterator[None]:
        self.take(start)
        if self.peek() == end:
            self.take(end)
            return
        yield
        while self.peek() == ",":
            self.take(",")
            yield
        self.take(end)

    def pass_over(self) -> None:
        """Go behind the next value, of whatever length, unread."""
        start = self.peek()
        if start == "{":
            for _ in self.members():
                self.pass_over()
        elif start == "[":
            for _ in self.items():
                self.value() if self.peek() == "{" else self.pass_over()
        else:
            self.value()

    def _more(self, least: int = 0) -> bool:
        """Read on, as much again as is waiting; return whether there was any more."""
        if self._ended:
            return False
        block = self._file.read(max(_CHUNK, least))
        if not self._begun and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError("it is UTF-16, and must be converted to UTF-8")
        self._begun = True
        self._ended = not block
        self._text = self._text[self._place :] + self._decoder.decode(block, final=not block)
        self._place = 0
        return bool(block)


def find_lists(stream: JsonStream) -> list[Keys] | None:
    """Return the keys that lead to the lists of objects in a file, as far as it can be read; () is the file itself.

    None: the file is objects, one after another.
    """
    if stream.peek() != "{":
        return [()]
    found: list[Keys] = []
    with contextlib.suppress(ValueError, EOFError):
        for keys in _lists(stream, ()):
            found.append(keys)
        return None if stream.peek() else found
    return found


def _lists(stream: JsonStream, above: Keys) -> Iterator[Keys]:
    for key in stream.members():
        match stream.peek():
            case "{":
                yield from _lists(stream, (*above, key))
            case "[":
                first = True
                for _ in stream.items():
                    if first and stream.peek() == "{":
                        yield (*above, key)
                    first = False
                    stream.pass_over()
            case _:
                stream.pass_over()


def read_values(stream: JsonStream) -> Iterator[Any]:
    """Yield the items of a list, or values that stand one after another.

    Raises:
      ValueError: the file is damaged, or a value is longer than 16 million characters.
    """
    while start := stream.peek():
        if start == "[":
            for _ in stream.items():
                yield stream.value()
        else:
            yield stream.value()


def go_to(stream: JsonStream, name: str) -> bool:
    """Go to the list below keys that are joined by dots; return whether there is one.

    A key that is the whole name, or more of it, wins over shorter ones that come later.
    """
    if stream.peek() != "{":
        return not name and stream.peek() == "["
    for key in stream.members():
        if key == name and stream.peek() == "[":
            return True
        if name.startswith(f"{key}.") and stream.peek() == "{":
            return go_to(stream, name[len(key) + 1 :])
        stream.pass_over()
    return False
