"""A language game that a tiny model learns in a minute, and the real commands run on it.

Sentences are 4 to 8 different made-up English words. German says them in reverse order, Spanish with every letter
shifted by one, Portuguese as they are, with a closing word. One model learns four directions, each of another kind.
"""

import os
import random
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jaxlib
from toy_corpus import WHEEL, make_wheel, values_of, write_spec

from nmt.config.documents import dump_document

# Most of the suite's time is XLA compiling what runs once. Its older code generator for CPUs, with one module a program
# and without LLVM's expensive passes, takes a third of the time; what JAX asks of XLA and what XLA makes of that is the
# same. A flag that another release may not know ends the process.
_QUICK_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
COMPILED_QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | (
    {"XLA_FLAGS": _QUICK_FLAGS} if jaxlib.__version__.startswith("0.10.") else {}
)

DIRECTIONS = ("en-de", "de-en", "es-en", "en-pt")
COMPONENTS, SENTENCES = 200, 25  # sentences of a component
CLOSING = "olá"
_SHIFT = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[1:] + "a")

RECIPE = {
    "description": "Languages made of each other; a minute on two cores.",
    "data": {
        "corpora": ["toy"],
        "directions": list(DIRECTIONS),
        "source_length": 32,
        "target_length": 32,
    },
    "vocab": {"size": 352},
    "model": {
        "width": 64,
        "hidden": 128,
        "heads": 4,
        "head_width": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "dropout": 0.0,
        "dtype": "float32",
        "moe": {"experts": 4, "every": 2},
    },
    "train": {
        "steps": 600,
        "tokens_per_batch": 1024,
        "label_smoothing": 0.0,
        "schedule": {"name": "linear", "learning_rate": 3e-3, "warmup_steps": 100},
        "log_every": 50,
        "checkpoint_every": 300,
    },
    "decode": {"beam": 2},
}
# A layer of one kind in each stack, two directions, and translations that end at once: for runs that need not learn.
TINY = (
    "data.directions=en-de,es-en",
    "vocab.size=340",
    "model.width=16",
    "model.hidden=32",
    "model.heads=2",
    "model.head_width=8",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.moe.every=1",
    "train.tokens_per_batch=256",
    "train.schedule.name=rsqrt",
    "train.schedule.learning_rate=0.001",
    "decode.beam=1",
    "decode.max_length_ratio=0.1",
    "decode.max_length_extra=1",
    "evaluate.sentences=10",
    "evaluate.samples=0",
)


def lexicon() -> list[str]:
    """Return 32 words of two syllables; none is a shifted other."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
    generator = random.Random(5)
    return sorted({"".join(generator.sample(syllables, 2)) for _ in range(32)})


def sentence(generator: random.Random, words: list[str]) -> str:
    """Return 4 to 8 different words."""
    return " ".join(generator.sample(words, generator.randint(4, 8)))


def translation(text: str, language: str) -> str:
    """Return what English text is in another language of the game."""
    match language:
        case "en":
            return text
        case "de":
            return " ".join(reversed(text.split()))
        case "es":
            return text.translate(_SHIFT)
        case "pt":
            return f"{text} {CLOSING}"
    raise ValueError(language)


def tables() -> dict[tuple[str, str], dict[str, str]]:
    """Return the string tables of the corpus, by component and language."""
    generator, words = random.Random(1), lexicon()
    found = {}
    for number in range(COMPONENTS):
        texts = {f"key{key}": sentence(generator, words) for key in range(SENTENCES)}
        for language in ("en", "de", "es", "pt"):
            found[f"component{number}", language] = {key: translation(text, language) for key, text in texts.items()}
    return found


@dataclass(frozen=True)
class Playground:
    """A working directory with the corpus and its recipe, and commands run in it.

    Attributes:
      folder: the working directory.
      recipe: the name of the recipe.
      programs: the folder in which commands share what they compile, quickly; None: they compile as people's do.
    """

    folder: Path
    recipe: str
    programs: Path | None = None

    @classmethod
    def make(cls, folder: Path, programs: Path | None = None, recipe: str = "quickstart") -> "Playground":
        """Write the corpus, where pip alone finds it, and the recipe, where its name alone finds it."""
        for name in ("recipes", "data", "links"):
            (folder / name).mkdir(parents=True)
        wheel = make_wheel(folder / "links" / WHEEL, tables())
        split = {"by": "component", "test": 4, "dev": 3}
        write_spec(folder / "data", values_of(wheel) | {"split": split})
        (folder / "recipes" / f"{recipe}.yaml").write_text(dump_document(RECIPE))
        return cls(folder, recipe, programs)

    @property
    def run(self) -> Path:
        """The folder of the run of the recipe as it stands."""
        return self.folder / "runs" / self.recipe

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands: a cache of its own, no network, and nothing that tests are run with."""
        ours = ("PIP_", "NMT_", "JAX_", "XLA_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return (
            kept
            | {
                "PATH": path,
                "NMT_CACHE": str(self.folder / "cache"),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.folder / "links"),
                "COLUMNS": "120",
            }
            | self._compilation
        )

    @property
    def _compilation(self) -> dict[str, str]:
        if self.programs is None:
            return {}
        return COMPILED_QUICKLY | {
            "JAX_COMPILATION_CACHE_DIR": str(self.programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def command(
        self, *arguments: str, given: str = "", timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an installed command to its end."""
        return subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment | environment,
            input=given,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start an installed command."""
        return subprocess.Popen(
            arguments,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Return when every file below a folder was last written, and its size."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def one_line(done: subprocess.CompletedProcess[str], command: str) -> str:
    """Return the line with which a command refuses what it is asked."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    line = done.stderr.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith(f"{command}: error: ")
    return line
