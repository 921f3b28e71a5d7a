"""The section of a declaration on how published test sets are read."""

from typing import Literal

from pydantic import Field

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, PatternSection


class Wmt(PatternSection):
    """Test sets of WMT and IWSLT: .sgm, and the .xml of 2021 and later; the component is the name of the set.

    The language of a text is that of {language}, of the file, or of its name, as in newstest2014-deen-src.de.sgm;
    source and references belong together by the rest of their names. Left out: further references of a segment, and
    translations by systems.
    """

    kind: Literal["wmt"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no side, the first language.")
