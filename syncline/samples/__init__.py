"""Samples: real data for a graph's write-db, from public reference works."""

from pathlib import Path

from syncline.errors import SampleInvalid
from syncline.samples.sample import Row, Sample, SampleTable, holds_rows, load_sample
from syncline.samples.wordnet import WordNet
from syncline.samples.world import World

SAMPLES = ("wordnet", "world")
"""The names that `open_sample` knows."""


def open_sample(name: str, *, dict_dir: Path | None = None) -> Sample:
    """Return the sample of this name, or raise SampleInvalid; `wordnet` needs its data files' folder."""
    if name == "world":
        return World()
    if name == "wordnet":
        if dict_dir is None:
            raise SampleInvalid(
                "The sample 'wordnet' needs the folder of its data files; `make wordnet` fills .wordnet/dict."
            )
        return WordNet(dict_dir)
    raise SampleInvalid(f"There is no sample '{name}' (known: {', '.join(SAMPLES)}).")


__all__ = [
    "SAMPLES",
    "Row",
    "Sample",
    "SampleTable",
    "WordNet",
    "World",
    "holds_rows",
    "load_sample",
    "open_sample",
]
