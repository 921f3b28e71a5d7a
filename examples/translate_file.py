"""Translate a file to JSON lines: text, translation, score, and whether the line was cut.

    python examples/translate_file.py runs/quickstart en es in.txt out.jsonl

N lines in, N lines out. `nmt-translate` does the same for plain text; this is for programs that want more of each line.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nmt import Translator

CHUNK = 1024  # lines that are translated together: sorted by length inside, they fill the batches of the search


def chunks(file: Iterator[str]) -> Iterator[list[str]]:
    """Yield the lines of a file, so many at a time, without their ends."""
    while lines := [line.rstrip("\n") for line in islice(file, CHUNK)]:
        yield lines


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Translate a file of lines to JSON lines.")
    parser.add_argument("run", help="folder of a run, such as runs/quickstart")
    parser.add_argument("source", help="language of the text, in any spelling: de, deu, de-DE, German")
    parser.add_argument("target", help="language wanted")
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()

    translator = Translator(arguments.run)  # loads the newest checkpoint; programs are compiled at first use
    direction = translator.direction(arguments.source, arguments.target)  # UserError where a language is unknown
    if not translator.is_trained(direction):
        print(f"note: {direction} was not trained, only its languages")
    with arguments.text.open(encoding="utf-8") as text, arguments.output.open("w", encoding="utf-8") as output:
        for lines in chunks(text):
            for line, one in zip(
                lines, translator.translate_scored(lines, arguments.source, arguments.target), strict=True
            ):
                # `split` is true where a line was longer than the model has learnt.
                record = {"source": line, "text": one.text, "score": one.score, "cut": one.split}
                output.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
