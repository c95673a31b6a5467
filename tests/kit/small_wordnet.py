"""A WordNet of five synsets: each kind of file, and each of the tables that a sample fills."""

from pathlib import Path

__all__ = ["SMALL", "write_small_wordnet"]

SMALL = {
    "data.noun": "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived\n"
    "00001930 03 n 01 thing 0 001 @ 00001740 n 0000 | an entity that exists\n",
    "data.verb": "00001740 29 v 01 breathe 0 000 01 + 02 00 | draw air\n",
    "data.adj": "00001740 00 a 01 able 0 000 | having the means\n",
    "data.adv": "00001740 02 r 01 ably 0 001 \\ 00001740 a 0101 | in an able manner\n",
}


def write_small_wordnet(folder: Path) -> Path:
    """Write its data files to a folder, and return that."""
    for name, text in SMALL.items():
        (folder / name).write_text(text)
    return folder
