"""The WNDB format: the `data.*` files in which WordNet is published (manual page wndb(5WN))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from syncline.errors import SampleInvalid

_OFFSET = re.compile(r"[0-9]{8}").fullmatch
_COUNT = re.compile(r"[0-9]{2,3}").fullmatch
_HEX = re.compile(r"[0-9a-fA-F]{1,2}").fullmatch
_WORD_NUMBERS = re.compile(r"[0-9a-fA-F]{4}").fullmatch
_MARKER = re.compile(r"\((?:a|p|ip)\)$")
# Examples follow the definition after `; "`, in a few synsets after `: "`. A quotation without either belongs
# to the definition ("a demand especially in the phrase …").
_FIRST_EXAMPLE = re.compile(r'[;:]\s*"')

LEX_FILES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event",
    "noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object",
    "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process",
    "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition",
    "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)  # fmt: skip
"""Lexicographer file by its number (manual page lexnames(5WN); not every distribution carries `lexnames`)."""

RELATIONS = {
    "!": "antonym",
    "@": "hypernym",
    "@i": "instance_hypernym",
    "~": "hyponym",
    "~i": "instance_hyponym",
    "#m": "member_holonym",
    "#s": "substance_holonym",
    "#p": "part_holonym",
    "%m": "member_meronym",
    "%s": "substance_meronym",
    "%p": "part_meronym",
    "=": "attribute",
    "+": "derivationally_related_form",
    ";c": "domain_topic",
    "-c": "member_of_domain_topic",
    ";r": "domain_region",
    "-r": "member_of_domain_region",
    ";u": "domain_usage",
    "-u": "member_of_domain_usage",
    "*": "entailment",
    ">": "cause",
    "^": "also_see",
    "$": "verb_group",
    "&": "similar_to",
    "<": "participle_of_verb",
    "\\": "pertainym",
}
"""Pointer symbol -> readable name (manual page wninput(5WN))."""


@dataclass(frozen=True)
class Category:
    """A syntactic category: its file, its letter in pointers, and the synset types that its file may hold."""

    name: str
    letter: str
    synset_types: str

    @property
    def file(self) -> str:
        """Name of the data file."""
        return f"data.{self.name}"


CATEGORIES = (
    Category("noun", "n", "n"),
    Category("verb", "v", "v"),
    Category("adj", "a", "as"),
    Category("adv", "r", "r"),
)
_LETTERS = {"n": "n", "v": "v", "a": "a", "s": "a", "r": "r"}
"""Part of speech of a pointer -> letter of the file it points into: satellites live among the adjectives."""


class Pointer(NamedTuple):
    """A relation to another synset; word numbers count from 1, and 0 means the synset as a whole."""

    symbol: str
    letter: str
    offset: str
    source_word: int
    target_word: int


class Synset(NamedTuple):
    """One line of a data file."""

    offset: str
    lex_file: str
    satellite: bool
    words: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    frames: tuple[int, ...]
    """Numbers of the sentence frames of a verb, each once."""
    gloss: str

    @property
    def definition(self) -> str:
        """The gloss without its examples."""
        example = _FIRST_EXAMPLE.search(self.gloss)
        return self.gloss[: example.start()].rstrip() if example else self.gloss


def parse_synset(line: str, category: Category) -> Synset:
    """Return the synset that a line says, or raise ValueError naming the problem."""
    record, bar, gloss = line.partition(" | ")
    gloss = gloss.strip()
    if not bar or not gloss:
        raise ValueError("there is no gloss after ' | '")
    if "\0" in line:
        raise ValueError("there is a NUL byte")
    fields = record.split()
    if len(fields) < 4:
        raise ValueError("the line ends before its word count")
    offset, lex_number, synset_type, word_count = fields[:4]
    if not _OFFSET(offset):
        raise ValueError(f"synset offset '{offset}' is not eight digits")
    if synset_type not in category.synset_types:
        raise ValueError(f"synset type '{synset_type}' does not belong in {category.file}")
    if not _COUNT(lex_number) or int(lex_number) >= len(LEX_FILES):
        raise ValueError(f"lexicographer file '{lex_number}' is unknown")
    first_pointer = 5 + 2 * _word_count(word_count)
    pointer_count = _decimal("pointer count", fields, first_pointer - 1)
    words = tuple(_MARKER.sub("", word).replace("_", " ") for word in fields[4 : first_pointer - 1 : 2])
    rest = first_pointer + 4 * pointer_count
    if len(fields) < rest:
        raise ValueError(f"the line ends before its {pointer_count} pointers do")
    pointers = tuple(_pointer(fields[at : at + 4], len(words)) for at in range(first_pointer, rest, 4))
    frames = _frames(fields, rest) if category.letter == "v" else ()
    if category.letter != "v" and len(fields) > rest:
        raise ValueError(f"'{fields[rest]}' follows the {pointer_count} pointers")
    satellite = synset_type == "s"
    return Synset(offset, LEX_FILES[int(lex_number)], satellite, words, pointers, frames, gloss)


def _word_count(text: str) -> int:
    if not _HEX(text) or int(text, 16) == 0:
        raise ValueError(f"word count '{text}' is not a positive hexadecimal number")
    return int(text, 16)


def _decimal(what: str, fields: list[str], at: int) -> int:
    if at >= len(fields):
        raise ValueError(f"the line ends before its {what}")
    if not _COUNT(fields[at]):
        raise ValueError(f"{what} '{fields[at]}' is not a number")
    return int(fields[at])


def _pointer(fields: list[str], words: int) -> Pointer:
    symbol, offset, part_of_speech, numbers = fields
    if symbol not in RELATIONS:
        raise ValueError(f"pointer symbol '{symbol}' is unknown")
    if not _OFFSET(offset):
        raise ValueError(f"pointer offset '{offset}' is not eight digits")
    if part_of_speech not in _LETTERS:
        raise ValueError(f"pointer part of speech '{part_of_speech}' is unknown")
    source_word, target_word = _word_numbers(numbers)
    if source_word > words:
        raise ValueError(f"a pointer starts at word {source_word} of {words}")
    return Pointer(symbol, _LETTERS[part_of_speech], offset, source_word, target_word)


@lru_cache(maxsize=4096)
def _word_numbers(text: str) -> tuple[int, int]:
    if not _WORD_NUMBERS(text):
        raise ValueError(f"pointer source/target '{text}' is not four hexadecimal digits")
    source, target = bytes.fromhex(text)
    if (source == 0) != (target == 0):
        raise ValueError(f"pointer source/target '{text}' joins a word and a whole synset")
    return source, target


def _frames(fields: list[str], at: int) -> tuple[int, ...]:
    if at == len(fields):
        # Two verbs of WordNet 3.1 have no frames at all, not even a count.
        return ()
    count = _decimal("frame count", fields, at)
    frames = fields[at + 1 :]
    if len(frames) != 3 * count:
        raise ValueError(f"{count} verb frames take {3 * count} fields, and there are {len(frames)}")
    for plus, word in zip(frames[::3], frames[2::3], strict=True):
        if plus != "+" or not _HEX(word):
            raise ValueError(f"verb frame '{plus} … {word}' is not '+ frame word'")
    numbers = [_decimal("verb frame", frames, index) for index in range(1, len(frames), 3)]
    return tuple(dict.fromkeys(numbers))


def read_synsets(folder: Path, category: Category) -> Iterator[Synset]:
    """Yield the synsets of a data file, or raise SampleInvalid naming the file, the line and the problem."""
    path = folder / category.file
    last = ""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            # The license is indented by two spaces.
            if line.startswith(b"  ") or not line.strip():
                continue
            try:
                synset = parse_synset(line.decode("utf-8"), category)
                # Offsets are positions in the file; a repeated one would be two synsets of one name.
                if synset.offset <= last:
                    raise ValueError(f"synset offset {synset.offset} does not follow {last}")
            except ValueError as error:
                raise SampleInvalid(f"{path}, line {number}: {error}") from error
            last = synset.offset
            yield synset


def read_license(folder: Path, category: Category) -> str:
    """Return the license text at the head of a data file, without its line numbers."""
    kept: list[str] = []
    with (folder / category.file).open("rb") as lines:
        for line in lines:
            if not line.startswith(b"  "):
                break
            text = line.decode("utf-8", errors="replace").strip()
            kept.append(re.sub(r"^[0-9]+ ?", "", text))
    return "\n".join(kept)
