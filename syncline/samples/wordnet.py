"""WordNet as a knowledge graph: a synset is a node, its gloss a fact, a pointer an edge."""

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from syncline.errors import SampleInvalid
from syncline.samples.sample import Row, SampleTable, sample_table
from syncline.samples.wndb import (
    CATEGORIES,
    RELATIONS,
    Category,
    Pointer,
    Synset,
    read_license,
    read_synsets,
)

_NODE_TYPES = {"n": "noun", "v": "verb", "a": "adjective", "r": "adverb"}
_URI = "https://wordnet.princeton.edu/"


class WordNet:
    """The data files of a WordNet in WNDB format (3.1 and 3.0 are). Each table reads the files once.

    Nothing is kept between rows, so memory does not grow with the files.
    """

    name = "wordnet"

    def __init__(self, dict_dir: Path) -> None:
        self._folder = dict_dir

    def tables(self) -> list[SampleTable]:
        """Return the tables, or raise SampleInvalid naming a data file that is missing."""
        for category in CATEGORIES:
            if not (path := self._folder / category.file).is_file():
                raise SampleInvalid(
                    f"WordNet's data file {path} is missing. `make wordnet` puts all four into .wordnet/dict."
                )
        return [
            sample_table("write_raw_sources", self._raw_sources()),
            sample_table("write_facts", self._facts()),
            sample_table("write_fact_sources", self._fact_sources()),
            sample_table("write_nodes", self._nodes()),
            sample_table("write_edges", self._edges()),
        ]

    def _synsets(self) -> Iterator[tuple[Category, Synset]]:
        for category in CATEGORIES:
            for synset in read_synsets(self._folder, category):
                yield category, synset

    def _edition(self, category: Category) -> tuple[str | None, str]:
        """Return the version that a data file's license names, and the license."""
        text = read_license(self._folder, category)
        version = re.search(r"WordNet ([0-9]+(?:\.[0-9]+)*) Copyright", text)
        return (version[1] if version else None), text

    def _raw_sources(self) -> Iterator[Row]:
        for category in CATEGORIES:
            with (self._folder / category.file).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            version, text = self._edition(category)
            # The license wants its notice on every copy, so it travels with the source.
            metadata = json.dumps({"version": version, "file": category.file, "license": text})
            title = f"{_title(version)}, {category.file}"
            yield _source_id(category), _URI, title, "text/plain", digest, "wordnet", metadata, "fetched"

    def _facts(self) -> Iterator[Row]:
        for category, synset in self._synsets():
            yield _fact_id(category.letter, synset.offset), synset.gloss, "definition", "ready"

    def _fact_sources(self) -> Iterator[Row]:
        for category in CATEGORIES:
            attribution = f"{_title(self._edition(category)[0])}, Princeton University"
            source = _source_id(category)
            for synset in read_synsets(self._folder, category):
                yield _fact_id(category.letter, synset.offset), source, None, attribution

    def _nodes(self) -> Iterator[Row]:
        for category, synset in self._synsets():
            hypernym = next((pointer for pointer in synset.pointers if pointer.symbol == "@"), None)
            yield (
                _node_id(category.letter, synset.offset),
                synset.words[0],
                _NODE_TYPES[category.letter],
                synset.definition,
                _node_id(hypernym.letter, hypernym.offset) if hypernym else None,
                [_fact_id(category.letter, synset.offset)],
                json.dumps(_node_metadata(synset)),
            )

    def _edges(self) -> Iterator[Row]:
        for category, synset in self._synsets():
            letter, offset = category.letter, synset.offset
            source, fact_ids = _node_id(letter, offset), [_fact_id(letter, offset)]
            # The files repeat a few pointers word for word.
            for pointer in dict.fromkeys(synset.pointers):
                yield (
                    _edge_id(letter, offset, pointer),
                    source,
                    _node_id(pointer.letter, pointer.offset),
                    _relation(letter, pointer.symbol),
                    # Symmetric relations are stored once from either side, so each pointer has a direction.
                    True,
                    None,
                    fact_ids,
                    _edge_metadata(synset, pointer),
                )


def _title(version: str | None) -> str:
    return f"WordNet {version}" if version else "WordNet"


def _source_id(category: Category) -> str:
    return f"wordnet:{category.file}"


def _node_id(letter: str, offset: str) -> str:
    return f"synset:{letter}:{offset}"


def _fact_id(letter: str, offset: str) -> str:
    return f"gloss:{letter}:{offset}"


def _edge_id(letter: str, offset: str, pointer: Pointer) -> str:
    words = f"{pointer.source_word:02x}{pointer.target_word:02x}"
    return f"{letter}:{offset}:{pointer.symbol}:{pointer.letter}:{pointer.offset}:{words}"


def _relation(letter: str, symbol: str) -> str:
    # An adverb's backslash says which adjective it is made from (wninput(5WN)).
    return "derived_from_adjective" if symbol == "\\" and letter == "r" else RELATIONS[symbol]


def _node_metadata(synset: Synset) -> dict[str, object]:
    metadata: dict[str, object] = {"words": synset.words, "lex_file": synset.lex_file}
    if synset.satellite:
        metadata["satellite"] = True
    if synset.frames:
        metadata["frames"] = synset.frames
    return metadata


def _edge_metadata(synset: Synset, pointer: Pointer) -> str:
    if not pointer.source_word:
        return _semantic_metadata(pointer.symbol)
    word = synset.words[pointer.source_word - 1]
    return json.dumps({"symbol": pointer.symbol, "word": word, "target_word": pointer.target_word})


@cache
def _semantic_metadata(symbol: str) -> str:
    return json.dumps({"symbol": symbol})
