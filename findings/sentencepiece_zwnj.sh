#!/usr/bin/env bash
# sentencepiece 0.2.3: the default normaliser makes a space of the zero width non-joiner, and keeps the joiner.
#
# Persian writes one word with U+200C inside, as in mi-khaham ("I want"). Unicode's NFKC, after which the default rule
# nmt_nfkc is named, leaves U+200C alone, and one would have guessed that so does SentencePiece. It becomes a space: the
# word is two words, and decoding cannot give it back, so every output lacks the character and every reference has it.
# U+200D (joiner), of as much use in Indic scripts, stays. Rule `nfkc` keeps both.
#
# Output seen (2026-11-30, Python 3.11):
#   nmt_nfkc: U+200C -> ' ', U+200D -> '\u200d'
#   nfkc: U+200C -> '\u200c', U+200D -> '\u200d'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sentencepiece==0.2.3

"$folder/venv/bin/python" - <<'PYTHON'
import unicodedata

from sentencepiece import SentencePieceNormalizer

found = {}
for rule in ("nmt_nfkc", "nfkc"):
    normalize = SentencePieceNormalizer(rule_name=rule, add_dummy_prefix=False, escape_whitespaces=False).normalize
    found[rule] = [normalize(f"a{character}b")[1:-1] for character in "\u200c\u200d"]
    print(f"{rule}: U+200C -> {found[rule][0]!r}, U+200D -> {found[rule][1]!r}")
assert unicodedata.normalize("NFKC", "a\u200cb") == "a\u200cb"
assert found == {"nmt_nfkc": [" ", "\u200d"], "nfkc": ["\u200c", "\u200d"]}, "the behaviour has changed"
PYTHON
