#!/usr/bin/env bash
# translate-toolkit 3.20.4: a .properties file in ISO 8859-1 is read in an encoding that is guessed, even if one is named.
#
# `javafile(encoding="iso-8859-1")` is the reader of Java's properties, whose own encoding that is, and one would have
# guessed that it decodes with it. With charset-normalizer in the environment, which `requests` brings, the encoding is
# guessed from the bytes first, and the argument is for what the guess leaves open: French and Portuguese come back with
# letters of Central Europe, without a warning. Without charset-normalizer the same call is right.
# What helps: decode the bytes first, as UTF-8 or else as ISO 8859-1, and give a parser the text (javaproperties).
#
# Output seen (2026-11-30, Python 3.11):
#   alone: read as iso-8859-1: La fenêtre est très étroite
#   with charset-normalizer: read as windows-1250: La fenętre est trčs étroite
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4

cat > "$folder/show.py" <<'PYTHON'
from translate.storage.properties import javafile

text = "door = Ouvrir la porte à droite\nwall = La fenêtre est très étroite\nroom = Les pièces de derrière\n"
store = javafile(encoding="iso-8859-1")
store.parse(text.encode("iso-8859-1"))
print(f"read as {store.encoding}: {store.units[1].source}")
PYTHON
alone=$("$folder/venv/bin/python" "$folder/show.py")
echo "alone: $alone"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check charset-normalizer==3.5.2
guessed=$("$folder/venv/bin/python" "$folder/show.py")
echo "with charset-normalizer: $guessed"
[[ $alone == "read as iso-8859-1: La fenêtre est très étroite" && $guessed != "$alone" ]] || {
    echo "the behaviour has changed" >&2
    exit 1
}
