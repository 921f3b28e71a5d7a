#!/usr/bin/env bash
# grain 0.2.18, MapDataset: a mixture that is sliced by host does not give every host the mixture.
#
# Two sources of equal weight, mixed, and every second element taken by each of two hosts, as the slice [host::hosts]
# is for. One would have guessed that each host sees about half of either source. The mixture is a periodic round
# robin, so one host sees nothing but the first source, the other nothing but the second. Slice the sources before
# mixing, or shuffle the mixture within windows before it is sliced.
#
# Output seen (2026-11-30, Python 3.11):
#   host 0: {'a': 500}
#   host 1: {'b': 500}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18

"$folder/venv/bin/python" - <<'PYTHON'
from collections import Counter

import grain

sources = [grain.MapDataset.source([name] * 1000).repeat() for name in "ab"]
mixture = grain.MapDataset.mix(sources, weights=[0.5, 0.5])
seen = []
for host in range(2):
    slice_of_host = mixture[host::2]
    seen.append(Counter(slice_of_host[index] for index in range(500)))
    print(f"host {host}: {dict(seen[-1])}")
assert [len(counts) for counts in seen] == [1, 1], "the behaviour has changed"
PYTHON
