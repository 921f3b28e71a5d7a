"""Names of documents in OPUS's files, such as `de/2001/x.xml.gz`, as the components of their sentences."""

from collections.abc import Collection

from nmt.corpora.readers.compressed import stem


def document_name(document: str, codes: Collection[str]) -> str:
    """Return the name of a document without its ending, and without the folder of its language.

    It is the same in all languages where OPUS has the same document in several.

    Args:
      document: as OPUS writes it.
      codes: of languages that the first folder may be of.
    """
    folder, slash, rest = document.partition("/")
    name = rest if slash and folder in codes else document
    return stem(name).removesuffix(".xml")
