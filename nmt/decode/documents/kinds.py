"""The kinds of documents, and how a file's name tells them."""

from nmt.corpora.readers.compressed import stem
from nmt.errors import UserError, did_you_mean

LINES, JSONL, TSV, SRT, VTT = KINDS = ("lines", "jsonl", "tsv", "srt", "vtt")
_ENDINGS = {
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSONL,
    ".tsv": TSV,
    ".tab": TSV,
    ".srt": SRT,
    ".vtt": VTT,
}


def document_kind(name: str | None, given: str | None = None) -> str:
    """Return the kind of a document: the given one, else that of the file's name; plain lines if it tells nothing.

    Raises:
      UserError: there is no kind of the given name.
    """
    if given is not None:
        if given not in KINDS:
            raise UserError(f"--format {given} is none of {', '.join(KINDS)}{did_you_mean(given, KINDS)}")
        return given
    plain = stem(name.lower()) if name else ""
    return next((kind for ending, kind in _ENDINGS.items() if plain.endswith(ending)), LINES)
