"""A vocabulary: a SentencePiece model with byte fallback and a tag, which is a control symbol, for each language."""

import hashlib
import io
import itertools
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import sentencepiece
from etils import epath

from nmt.config.schema import VocabConfig
from nmt.data.spelling import Spelling, one_line
from nmt.errors import UserError, did_you_mean
from nmt.files import atomic_write

SizeKey = Literal["size", "target_size"]

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIALS = 4
DOMAIN = "<domain:{}>"
BACK_TRANSLATED = "<bt>"
DENOISE, MASK = "<denoise>", "<mask>"
_TAG = re.compile(r">>(.+)<<")
# The learnt model depends on this number (sums of floats are split by thread), so it is not the machine's.
_TRAINING_THREADS = 8
# SentencePiece's default limit of 4192 bytes would drop longer lines silently.
_LONGEST_LINE = 1 << 24
# Below this many texts, SentencePiece's thread pool costs more than it saves.
_FEW_TEXTS = 64


class Vocabulary:
    """A learnt vocabulary: text to token ids and back.

    Ids: 0 padding, 1 begin, 2 end, 3 unknown (never produced), then one tag per language, then other
    control symbols, then pieces. A vocabulary of targets alone may have no tags.

    Attributes:
      languages: canonical codes of the languages that have a tag, in order of their ids.
      symbols: the other control symbols, such as <domain:legal>, in order of their ids.
      size: number of ids (V).
      first_piece: the first id that text can have.
      digest: SHA-256 of the model file.
    """

    pad, begin, end, unk = PAD, BEGIN, END, UNKNOWN

    def __init__(self, model: bytes, name: str = "vocabulary"):
        """Take the bytes of a SentencePiece model; `name` is its name in errors. Raises UserError as `load`."""
        self._processor = _processor(model, name)
        self.size = int(self._processor.get_piece_size())
        self.digest = hashlib.sha256(model).hexdigest()
        self.languages = tuple(_tags(self._processor))
        self._is_bpe: bool | None = None
        self._inside: Any = None  # the model without a mark of a space at the beginning, once it is needed
        self.symbols = tuple(_symbols(self._processor, SPECIALS + len(self.languages)))
        self.first_piece = SPECIALS + len(self.languages) + len(self.symbols)

    @classmethod
    def load(cls, path: os.PathLike[str] | str) -> "Vocabulary":
        """Read a model file (RUN/vocab/vocab.model, source.model or target.model).

        Raises:
          UserError: there is no such file, or it is no vocabulary of this toolkit.
        """
        return cls(read_model(path), str(path))

    def tag(self, language: str) -> int:
        """Return the id of the tag that asks for a translation into a language (canonical code).

        Raises:
          UserError: the vocabulary has no such language.
        """
        if language not in self.languages:
            near = did_you_mean(language, self.languages)
            raise UserError(f"the model does not know {language}{near}; it knows {', '.join(self.languages)}")
        return SPECIALS + self.languages.index(language)

    def symbol(self, name: str) -> int:
        """Return the id of a control symbol, such as <domain:legal>.

        Raises:
          UserError: the vocabulary has no such symbol.
        """
        if name not in self.symbols:
            raise UserError(f"the model does not know {name}; it knows {', '.join(self.symbols) or 'no such symbol'}")
        return SPECIALS + len(self.languages) + self.symbols.index(name)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the pieces of every text: white space of any kind collapsed, no tag, begin or end.

        The model's own rule of normalisation is applied; identity changes no character, so that `decode` gives the
        text back. No text can produce a special id or a tag: they are control symbols. Unpaired surrogates become "?".
        """
        lines = [Spelling.choose(text) for text in texts]
        if len(lines) < _FEW_TEXTS:
            encoded = [self._processor.encode(line.text) for line in lines]
        else:
            encoded = self._processor.encode([line.text for line in lines])
        return [line.restore(ids, self._byte) for ids, line in zip(encoded, lines, strict=True)]

    def _byte(self, value: int) -> int:
        return int(self._processor.piece_to_id(f"<0x{value:02X}>"))

    @property
    def normalisation(self) -> str:
        """The name of the model's rule of normalisation, such as identity or nmt_nfkc; `custom` if it has no name."""
        from sentencepiece import sentencepiece_model_pb2 as protocol

        model = protocol.ModelProto.FromString(self._processor.serialized_model_proto())
        return str(model.normalizer_spec.name or "custom")

    def kind(self, piece: int) -> Literal["control", "unknown", "byte", "piece"]:
        """Return the kind of an id."""
        if self._processor.is_unknown(piece):
            return "unknown"
        if self._processor.is_control(piece):
            return "control"
        return "byte" if self._processor.is_byte(piece) else "piece"

    def spelt_characters(self, pieces: Sequence[int]) -> str:
        """Return the characters among pieces that are spelt in bytes, since no piece has them."""
        names = (str(self._processor.id_to_piece(piece)) for piece in pieces if self._processor.is_byte(piece))
        return bytes(int(name[3:-1], 16) for name in names).decode("utf-8", "ignore")

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the names of ids: `▁house` with the mark of a space, `</s>` for the end, `<0xD9>` for a byte."""
        return [str(self._processor.id_to_piece(token)) for token in tokens]

    @property
    def merges(self) -> bool:
        """Whether the model is BPE, which segments by merges, rather than unigram, which segments by probabilities."""
        if self._is_bpe is None:
            # Only a unigram model can list several segmentations; a BPE model raises.
            try:
                self._processor.nbest_encode("a", nbest_size=2)
                self._is_bpe = False
            except RuntimeError:
                self._is_bpe = True
        return self._is_bpe

    def best(self, text: str, count: int) -> list[tuple[list[int], float]]:
        """Return the at most `count` most probable segmentations of a text, with their log probabilities."""
        line = Spelling.choose(text)
        found = self._processor.nbest_encode(line.text, nbest_size=count) or [[]]
        return [(line.restore(list(ids), self._byte), sum(map(self._processor.get_score, ids))) for ids in found]

    def encode_inside(self, text: str) -> list[int]:
        """Return the pieces of a text that follows other text without a space: no mark of a space before it."""
        if self._inside is None:
            from sentencepiece import sentencepiece_model_pb2 as protocol

            model = protocol.ModelProto.FromString(self._processor.serialized_model_proto())
            model.normalizer_spec.add_dummy_prefix = False
            self._inside = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        line = Spelling.choose(text)
        return line.restore(self._inside.encode(line.text), self._byte)

    def written_bytes(self) -> list[bytes]:
        """Return the bytes that each id writes, a space for its mark; none for control symbols and the unknown."""
        return [self._written(piece) for piece in range(self.size)]

    def _written(self, piece: int) -> bytes:
        kind, name = self.kind(piece), str(self._processor.id_to_piece(piece))
        if kind == "byte":
            return bytes([int(name[3:-1], 16)])
        return name.replace("\u2581", " ").encode() if kind == "piece" else b""

    def encode_with_dropout(self, text: str, probability: float, rng: np.random.Generator) -> list[int]:
        """Return the pieces of a text by BPE-dropout: before every merge, each candidate is dropped with a probability.

        The best-scored of the remaining candidates is merged, as in SentencePiece's BPE.
        """
        line = Spelling.choose(text)
        pieces = list(self._processor.normalize(line.text))
        unknown = self._processor.unk_id()
        while True:
            joined = [self._processor.piece_to_id(a + b) for a, b in itertools.pairwise(pieces)]
            chances = rng.random(len(joined))
            possible = [
                (-self._processor.get_score(piece), place)
                for place, piece in enumerate(joined)
                if piece != unknown and chances[place] >= probability
            ]
            if not possible:
                break
            _, place = min(possible)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        ids: list[int] = []
        for piece in pieces:
            found = self._processor.piece_to_id(piece)
            ids += [found] if found != unknown else map(self._byte, piece.encode())
        return line.restore(ids, self._byte)

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return one line of text per sequence; specials, tags and ids beyond the vocabulary are dropped.

        Bytes that are not UTF-8 become U+FFFD. Line breaks become spaces, so a text stays on its line.
        """
        pieces = [[int(i) for i in ids if self.first_piece <= i < self.size] for ids in tokens]
        return [" ".join(text.split()) for text in self._processor.decode(pieces)] if pieces else []


def read_model(path: os.PathLike[str] | str) -> bytes:
    """Return the bytes of a model file. Raises UserError if it cannot be read."""
    try:
        return epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the vocabulary {path}: {error.strerror or error}") from None


def learn(
    texts: Mapping[str, Collection[str]],
    languages: Sequence[str],
    config: VocabConfig,
    path: os.PathLike[str] | str,
    seed: int,
    size: SizeKey = "size",
    symbols: Sequence[str] = (),
) -> Vocabulary:
    """Learn a vocabulary and write it to `path` (NAME.model), with a readable table beside it (NAME.tsv).

    The same arguments give the same bytes on every machine.

    Args:
      texts: distinct sentences by language code.
      languages: canonical codes that get a tag, in order.
      config: size, model type, character coverage, temperature and number of sentences.
      path: the model file to write.
      seed: seed of the sample.
      size: the key of `config` that has the number of pieces.
      symbols: other control symbols, in order, such as <domain:legal>.

    Raises:
      UserError: there is no text, or it is too little or too diverse for the size.
    """
    controls = [*(f">>{language}<<" for language in languages), *symbols]
    model = _train(sample(texts, config, seed), controls, config, size)
    vocabulary = Vocabulary(model)
    final = epath.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(final.with_suffix(".tsv")) as temporary:
        temporary.write_text("".join(_table(vocabulary._processor)))
    with atomic_write(final) as temporary:
        temporary.write_bytes(model)
    return vocabulary


def sample(texts: Mapping[str, Collection[str]], config: VocabConfig, seed: int) -> list[str]:
    """Return min(config.sentences, all) sentences, p(language) proportional to its number of sentences^(1/T).

    A language with fewer sentences than its share repeats them: whole copies, and a random part once more.

    Raises:
      UserError: there is no sentence at all.
    """
    counts = {language: len(sentences) for language, sentences in sorted(texts.items()) if sentences}
    if not counts:
        raise UserError("no text to learn a vocabulary from")
    weights = np.array(list(counts.values()), np.float64) ** (1 / config.temperature)
    total = min(config.sentences, sum(counts.values()))
    bounds = np.rint(np.cumsum(weights / weights.sum()) * total).astype(int)
    chosen: list[str] = []
    for language, wanted in zip(counts, np.diff(bounds, prepend=0), strict=True):
        copies, rest = divmod(int(wanted), counts[language])
        rng = np.random.default_rng([seed, zlib.crc32(language.encode())])
        part = np.sort(rng.choice(counts[language], rest, replace=False, shuffle=False))
        for _ in range(copies):
            chosen.extend(texts[language])
        chosen.extend(_pick(texts[language], part))
    return chosen


def _pick(texts: Iterable[str], places: np.ndarray) -> Iterator[str]:
    """Yield the texts at some places, which must ascend."""
    remaining, done = iter(texts), 0
    for place in places.tolist():
        yield next(islice(remaining, place - done, None))
        done = place + 1


def _train(sentences: Sequence[str], controls: Sequence[str], config: VocabConfig, size: SizeKey) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(one_line, sentences),
            model_writer=model,
            vocab_size=getattr(config, size),
            model_type=config.model_type,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            normalization_rule_name=config.normalisation,
            split_digits=config.split_digits,
            pad_id=PAD,
            bos_id=BEGIN,
            eos_id=END,
            unk_id=UNKNOWN,
            control_symbols=list(controls),
            max_sentence_length=_LONGEST_LINE,
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(str(error), f"vocab.{size}={getattr(config, size)}") from error
    return model.getvalue()


def _training_error(message: str, size: str) -> Exception:
    if found := re.search(r"too high.*value <= (\d+)", message):
        return UserError(
            f"{size} is too large for this text: the greatest possible size is {found[1]} "
            "(tags and byte pieces included)"
        )
    if found := re.search(r"(\d+) vs (\d+)\. Increase vocab_size", message):
        return UserError(
            f"{size} is too small: characters, byte pieces and tags alone take {found[2]}; "
            "raise it or lower vocab.character_coverage"
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return UserError("no text to learn a vocabulary from: every sentence is blank")
    return RuntimeError(f"SentencePiece: {message}")


def _processor(model: bytes, name: str) -> Any:
    wrong = UserError(f"{name} is damaged or not a vocabulary of this toolkit; learn it again, or restore the file")
    if not model:
        raise wrong
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        specials = (processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id())
        if specials != (PAD, BEGIN, END, UNKNOWN) or not processor.is_byte(processor.piece_to_id("<0x00>")):
            raise wrong
    except (RuntimeError, IndexError):
        raise wrong from None
    return processor


def is_toolkit_vocabulary(model: bytes, tagged: bool) -> bool:
    """Return whether a model is a vocabulary of this toolkit, with a tag if `tagged`."""
    try:
        vocabulary = Vocabulary(model)
    except UserError:
        return False
    return bool(vocabulary.languages) or not tagged


def _tags(processor: Any) -> Iterator[str]:
    for i in range(SPECIALS, processor.get_piece_size()):
        tag = _TAG.fullmatch(processor.id_to_piece(i))
        if not (tag and processor.is_control(i)):
            return
        yield tag[1]


def _symbols(processor: Any, first: int) -> Iterator[str]:
    for i in range(first, processor.get_piece_size()):
        if not processor.is_control(i):
            return
        yield processor.id_to_piece(i)


def _table(processor: Any) -> Iterator[str]:
    yield "id\tpiece\tscore\tkind\n"
    for i in range(processor.get_piece_size()):
        control = processor.is_control(i) or processor.is_unknown(i)
        kind = "control" if control else "byte" if processor.is_byte(i) else "piece"
        yield f"{i}\t{processor.id_to_piece(i)}\t{processor.get_score(i):.4f}\t{kind}\n"
