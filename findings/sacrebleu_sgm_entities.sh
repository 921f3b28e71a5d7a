#!/usr/bin/env bash
# sacreBLEU 2.6.0, test sets in .sgm (WMT until 2020): the references keep their character references.
#
# A source and a reference as WMT publishes them, where `&` is written `&amp;` and `"` is `&quot;`, are processed to the
# text that systems translate and are scored against. One would have guessed that it is unescaped, as that of the .xml
# test sets since 2021 is. It is not: a system that writes AT&T is compared with AT&amp;T. BLEU hides this, since its
# tokenizer 13a unescapes the four usual references; chrF of a perfect translation is far below 100. Unescape references
# before they are scored.
#
# Output seen (2026-11-30, Python 3.11):
#   reference: The firm AT&amp;T said &quot;no&quot; to the offer
#   BLEU 100.0, chrF 47.2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
export SACREBLEU="$folder/sets"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sacrebleu==2.6.0

mkdir -p "$SACREBLEU/toy/raw"
cat > "$SACREBLEU/toy/raw/src.sgm" <<'SGM'
<srcset setid="toy" srclang="any">
<doc docid="a">
<seg id="1">Die Firma AT&amp;T sagte &quot;nein&quot; zu dem Angebot</seg>
</doc>
</srcset>
SGM
cat > "$SACREBLEU/toy/raw/ref.sgm" <<'SGM'
<refset setid="toy" srclang="any" trglang="en">
<doc sysid="ref" docid="a">
<seg id="1">The firm AT&amp;T said &quot;no&quot; to the offer</seg>
</doc>
</refset>
SGM

"$folder/venv/bin/python" - <<'PYTHON'
import sacrebleu
from sacrebleu.dataset.fake_sgml import FakeSGMLDataset

toy = FakeSGMLDataset("toy", data=[], langpairs={"de-en": ["src.sgm", "ref.sgm"]})
toy.process_to_text("de-en")
(reference,) = (line.strip() for line in next(iter(toy.references("de-en"))))
perfect = 'The firm AT&T said "no" to the offer'
bleu, chrf = (score([perfect], [[reference]]).score for score in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
print(f"reference: {reference}")
print(f"BLEU {bleu:.1f}, chrF {chrf:.1f}")
assert "&amp;" in reference and bleu > 99 > chrf, "the behaviour has changed"
PYTHON
