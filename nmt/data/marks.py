"""Control symbols before the sources of training pairs, as the declarations of their corpora ask."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from nmt.corpora.cleaned.corpus import Pairs
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_split import Split
from nmt.data.vocab import BACK_TRANSLATED, DENOISE, DOMAIN, MASK
from nmt.errors import UserError
from nmt.languages import Direction, get


@dataclass(frozen=True)
class Marks:
    """The control symbols of corpora, by the name of the corpus.

    Attributes:
      domains: symbols of domains, such as <domain:legal>.
      synthetic: key languages of corpora of back-translated text; only directions into that language use them.
      denoise: whether there are denoising directions.
    """

    domains: Mapping[str, str]
    synthetic: Mapping[str, str]
    denoise: bool = False

    @classmethod
    def collect(cls, specs: Sequence[CorpusSpec], *, domains: bool, denoise: bool = False) -> Self:
        """Collect the marks of corpora, with or without symbols of domains and of denoising.

        Raises:
          UserError: symbols of domains are wanted, and no corpus has one.
        """
        found = {spec.name: DOMAIN.format(spec.domain) for spec in specs if domains and spec.domain is not None}
        if domains and not found:
            names = ", ".join(spec.name for spec in specs)
            raise UserError(f"data.domain_tags=true, but no declaration among {names} says a domain")
        return cls(found, {spec.name: get(spec.read.key_language).code for spec in specs if spec.synthetic}, denoise)

    @property
    def symbols(self) -> list[str]:
        """The control symbols that the vocabulary of sources needs, in order."""
        denoise = [DENOISE, MASK] if self.denoise else []
        return sorted({*self.domains.values()}) + [BACK_TRANSLATED] * bool(self.synthetic) + denoise

    def mark_pairs(
        self, direction: Direction, splits: Mapping[Split, Pairs]
    ) -> Mapping[Split, Iterable[tuple[str, ...]]]:
        """Return the pairs of a direction by split; training pairs carry the symbols of their corpora.

        Back-translated pairs come after all others, in the training split alone, and only in directions into the key
        language of their corpus. In a denoising direction both sides are the whole text, masked whenever it is drawn.
        """
        if direction.denoises:
            return {"train": ((text, text, DENOISE) for text, _ in splits["train"])}
        if not self.symbols:
            return splits
        return {split: self._marked(direction, split, pairs) for split, pairs in splits.items()}

    def _marked(self, direction: Direction, split: Split, pairs: Pairs) -> Iterator[tuple[str, ...]]:
        for pair, name in self._genuine_first(pairs):
            synthetic = name in self.synthetic
            if synthetic and (split != "train" or direction.target != self.synthetic[name]):
                continue
            if split != "train":
                yield pair
                continue
            marks = [BACK_TRANSLATED] if synthetic else []
            yield (*pair, *marks, *([self.domains[name]] if name in self.domains else []))

    def _genuine_first(self, pairs: Pairs) -> Iterator[tuple[tuple[str, str], str]]:
        for synthetic in (False, True) if self.synthetic else (False,):
            yield from (
                (pair, name) for pair, name in pairs.iterate_with_corpora() if (name in self.synthetic) == synthetic
            )
