"""Options of one translation request: search or sampling, and what a translation may consist of; imports no JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any, Literal, Self

from pydantic import ValidationError

from nmt.config import DecodeConfig
from nmt.config.keys import keys_by_name
from nmt.errors import UserError, did_you_mean

# Names of CTranslate2 (`Translator.translate_batch`) that mean the same here.
CTRANSLATE2_NAMES = {
    "beam_size": "beam",
    "num_hypotheses": "hypotheses",
    "max_decoding_length": "max_length",
    "min_decoding_length": "min_length",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "suppress_sequences": "suppress",
    "sampling_topk": "top_k",
    "sampling_topp": "top_p",
    "sampling_temperature": "temperature",
    "min_alternative_expansion_prob": "min_alternative_probability",
    "disable_unk": "unknown",
    "replace_unknowns": "unknown",
    "return_alternatives": "alternatives",
}
# Names of other toolkits, which are suggested: their meanings differ in some detail.
_OTHER_NAMES = {
    "num_beams": "beam",
    "nbest": "hypotheses",
    "n_best": "hypotheses",
    "num_return_sequences": "hypotheses",
    "do_sample": "sampling",
    "samples": "sampling",
    "num_beam_groups": "beam_groups",
    "diverse_beam_groups": "beam_groups",
    "diversity_penalty": "diversity",
    "diverse_beam_strength": "diversity",
    "epsilon_cutoff": "epsilon",
    "lenpen": "length_penalty",
    "alpha": "length_penalty",
    "normalize": "normalisation",
    "normalization": "normalisation",
    "max_new_tokens": "max_length",
    "max_len_b": "max_length_extra",
    "max_len_a": "max_length_ratio",
    "min_new_tokens": "min_length",
    "bad_words_ids": "suppress",
    "target_prefix": "prefixes, an argument of the translator",
    "prefix_bias_beta": "prefix_bias_beta of Steering",
    "max_batch_size": "batch_tokens",
}
_SAMPLES_ONLY = ("temperature", "top_k", "top_p", "epsilon")


@dataclass(frozen=True)
class SearchOptions:
    """Options of one request; docs/configuration.md describes those that are keys of a recipe's `decode` section.

    Args:
      suppress: texts, or sequences of token ids, that no output has.
      alternatives: position, in tokens of the greedy translation, at which alternatives are wanted: each of the
        translations has another token there, the same ones before, and is completed by greedy search. None: none are.
      min_alternative_probability: least probability of a token that makes an alternative.

    Raises:
      UserError: a value is out of its bounds, or values exclude each other.
    """

    beam: int = 4
    normalisation: Literal["gnmt", "length", "none"] = "gnmt"
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0
    patience: float | None = None
    early_stopping: bool = True
    hypotheses: int = 1
    beam_groups: int = 1
    diversity: float = 0.5
    sampling: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    epsilon: float = 0.0
    seed: int = 0
    min_length: int = 1
    min_length_ratio: float = 0.0
    max_length: int | None = None
    max_length_ratio: float = 2.0
    max_length_extra: int = 10
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    suppress: tuple[str | tuple[int, ...], ...] = ()
    unknown: Literal["never", "allowed"] = "never"
    batch_tokens: int = 2048
    alternatives: int | None = None
    min_alternative_probability: float = 0.0

    def __post_init__(self) -> None:
        suppress = tuple(one if isinstance(one, str) else tuple(one) for one in self.suppress)
        object.__setattr__(self, "suppress", suppress)
        shared = {key: getattr(self, key) for key in DecodeConfig.model_fields if hasattr(self, key)}
        shared["suppress"] = tuple(one for one in suppress if isinstance(one, str))
        if self.alternatives is not None:
            shared["beam"] = max(self.beam, self.hypotheses) * self.beam_groups  # they are not of one beam
        try:
            DecodeConfig.model_validate(shared, strict=True)
        except ValidationError as error:
            raise UserError(_explain(error)) from None
        if () in suppress:
            raise UserError("suppress has an empty sequence")
        if not 0.0 <= self.min_alternative_probability < 1.0:
            raise UserError(
                f"min_alternative_probability must be at least 0 and below 1 (not {self.min_alternative_probability})"
            )
        if self.alternatives is not None and (self.alternatives < 0 or self.sampling):
            reason = "excludes sampling" if self.sampling else f"must be at least 0 (not {self.alternatives})"
            raise UserError(f"alternatives {reason}")

    @classmethod
    def from_config(cls, config: DecodeConfig, **changes: Any) -> Self:
        """Return the options of a recipe's `decode` section with some changed; see `changed`."""
        own = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config if key in own}).changed(**changes)

    def changed(self, **given: Any) -> Self:
        """Return these options with those given; CTranslate2's names of options are accepted too.

        Raises:
          UserError: an option is unknown, has no effect, or has a wrong value.
        """
        values = _renamed(given)
        result = replace(self, **values)
        idle = [name for name in _SAMPLES_ONLY if name in values and not result.sampling]
        if idle:
            raise UserError(f"{idle[0]} has an effect on samples only: add sampling")
        return result

    @property
    def independent(self) -> bool:
        """Whether each translation of a sentence is completed by itself: a sample or an alternative."""
        return self.sampling or self.alternatives is not None

    @property
    def width(self) -> int:
        """Hypotheses of a sentence that live at a time (W)."""
        return self.hypotheses if self.independent else self.beam

    @property
    def length_base(self) -> float:
        """The base of the length normalisation, ((base + length) / (base + 1)) ** exponent."""
        return 5.0 if self.normalisation == "gnmt" else 0.0

    @property
    def length_exponent(self) -> float:
        """The exponent of the length normalisation."""
        return 0.0 if self.normalisation == "none" else self.length_penalty

    def normalised(self, log_probability: float, tokens: int) -> float:
        """Return the score of a hypothesis of so many tokens: its log probability over the length normaliser."""
        length = tokens + 1  # with the end
        return log_probability / ((self.length_base + length) / (self.length_base + 1)) ** self.length_exponent

    def min_tokens(self, pieces: int) -> int:
        """Return the least tokens that a source of so many pieces may become, the end not counted."""
        return min(max(self.min_length, ceil(self.min_length_ratio * pieces)), self.max_tokens(pieces))

    def max_tokens(self, pieces: int) -> int:
        """Return the most tokens that a source of so many pieces may become, the end not counted."""
        most = int(self.max_length_ratio * pieces) + self.max_length_extra
        return most if self.max_length is None else min(most, self.max_length)


def _renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by our names; those of CTranslate2 are translated, others refused."""
    known = [field.name for field in fields(SearchOptions)]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in CTRANSLATE2_NAMES:
            values |= _from_ctranslate2(name, value)
        elif name in known:
            values[name] = value
        else:
            near = f"; did you mean {_OTHER_NAMES[name]}?" if name in _OTHER_NAMES else did_you_mean(name, known)
            raise UserError(f"there is no option {name}{near}")
    return values


def _from_ctranslate2(name: str, value: Any) -> dict[str, Any]:
    """Return our options for one of CTranslate2's, whose samples begin with a `sampling_topk` other than 1."""
    if name == "sampling_topk":
        return {} if value == 1 else {"sampling": True, "top_k": value}
    if name == "disable_unk":
        return {"unknown": "never" if value else "allowed"}
    if name == "replace_unknowns":
        if value:
            raise UserError("replace_unknowns has nothing to replace: vocabularies spell unknown characters in bytes")
        return {}
    if name == "return_alternatives":
        return {"alternatives": 0 if value else None}
    return {CTRANSLATE2_NAMES[name]: value}


def _explain(error: ValidationError) -> str:
    """Return one line with the option, the value expected and the value given."""
    mistake = error.errors()[0]
    if not mistake["loc"]:
        return mistake["msg"].removeprefix("Value error, ")
    name = str(mistake["loc"][0])
    expected = keys_by_name()[f"decode.{name}"].type
    article = "" if expected.startswith(("one of", "text", "true")) else "a "
    value = mistake["input"]
    near = did_you_mean(value, keys_by_name()[f"decode.{name}"].options) if isinstance(value, str) else ""
    return f"{name} must be {article}{expected} (not {value!r}{near})"
