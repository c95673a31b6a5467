"""The WNDB parser, on real lines of WordNet 3.1 and on broken ones."""

from pathlib import Path

import pytest

from syncline.errors import SampleInvalid
from syncline.samples.wndb import CATEGORIES, LEX_FILES, Pointer, parse_synset, read_license, read_synsets

NOUN, VERB, ADJECTIVE, ADVERB = CATEGORIES
PHYSICAL_ENTITY = (
    "00001930 03 n 01 physical_entity 0 007 @ 00001740 n 0000 ~ 00002452 n 0000 ~ 00002684 n 0000 "
    "~ 00007347 n 0000 ~ 00021007 n 0000 ~ 00029976 n 0000 ~ 14625522 n 0000 | an entity that has physical "
    "existence  \r\n"
)
BREATHE = (
    "00240638 30 v 01 breathe 3 001 @ 00239751 v 0000 01 + 01 00 | reach full flavor by absorbing air and "
    'being let to stand after having been uncorked; "This rare Bordeaux must be allowed to breathe for at '
    'least 2 hours"  \n'
)
RESPIRE = (
    "00001740 29 v 04 breathe 0 take_a_breath 0 respire 0 suspire 3 003 + 04260703 n 0105 * 00004227 v 0000 "
    "~ 00004227 v 0000 02 + 02 00 + 08 01 | draw air into, and expel out of, the lungs"
)
SCORCH = "00220040 30 v 01 scorch 4 001 @ 00219846 v 0000 | become scorched or singed under intense heat"
REAL = (
    "00013616 00 s 02 real 0 tangible(p) 3 003 + 14000296 n 0101 + 04770294 n 0202 & 00013114 s 0000 "
    '| capable of being treated as fact; "tangible evidence"; "his brief time brought few real benefits"'
)
A_CAPPELLA = (
    "00001740 02 r 02 a_cappella 0 a_capella 0 002 \\ 02255689 a 0101 ;c 07034009 n 0000 "
    '| without musical accompaniment; "they performed a cappella"'
)


def test_a_noun_has_its_words_pointers_and_gloss() -> None:
    synset = parse_synset(PHYSICAL_ENTITY, NOUN)
    assert synset.offset == "00001930"
    assert synset.lex_file == "noun.Tops"
    assert synset.words == ("physical entity",)
    assert synset.pointers[0] == Pointer("@", "n", "00001740", 0, 0)
    assert len(synset.pointers) == 7
    assert synset.gloss == "an entity that has physical existence"
    assert synset.frames == ()


def test_word_counts_are_hexadecimal() -> None:
    words = " ".join(f"w{number} f" for number in range(0x1A))
    synset = parse_synset(f"00000001 05 n 1a {words} 001 @ 00000002 n 1a01 | many words", NOUN)
    assert len(synset.words) == 26
    assert synset.pointers == (Pointer("@", "n", "00000002", 26, 1),)


def test_a_satellite_adjective_points_into_the_adjective_file() -> None:
    synset = parse_synset(REAL, ADJECTIVE)
    assert synset.satellite
    assert synset.pointers[-1] == Pointer("&", "a", "00013114", 0, 0)


def test_the_syntactic_marker_is_not_part_of_an_adjective() -> None:
    assert parse_synset(REAL, ADJECTIVE).words == ("real", "tangible")


def test_lexical_pointers_keep_their_word_numbers() -> None:
    assert parse_synset(RESPIRE, VERB).pointers[0] == Pointer("+", "n", "04260703", 1, 5)


def test_verb_frames_follow_the_pointers() -> None:
    assert parse_synset(BREATHE, VERB).frames == (1,)
    assert parse_synset(RESPIRE, VERB).frames == (2, 8)


def test_a_verb_may_have_no_frames() -> None:
    assert parse_synset(SCORCH, VERB).frames == ()


def test_an_adverb_may_be_derived_from_an_adjective() -> None:
    assert parse_synset(A_CAPPELLA, ADVERB).pointers[0] == Pointer("\\", "a", "02255689", 1, 1)


@pytest.mark.parametrize(
    ("gloss", "definition"),
    [
        ('capable of being treated as fact; "tangible evidence"; "x"', "capable of being treated as fact"),
        ('a complete extent or range: "a gamut of emotions"', "a complete extent or range"),
        ('a demand especially in the phrase "the call of duty"', None),
        ('made ("straw" is archaic); "strew toys all over the carpet"', 'made ("straw" is archaic)'),
        ('a natural effortlessness; "a happy readiness"--Jane Austen', "a natural effortlessness"),
    ],
)
def test_a_definition_is_the_gloss_without_its_examples(gloss: str, definition: str | None) -> None:
    synset = parse_synset(f"00000001 05 n 01 x 0 000 | {gloss}", NOUN)
    assert synset.definition == (definition or gloss)
    assert synset.gloss == gloss


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("00001930 03 n 01 entity 0 000", "there is no gloss"),
        ("00001930 03 n 01 entity 0 000 |  ", "there is no gloss"),
        ("00001930 03 n | x", "ends before its word count"),
        ("1930 03 n 01 entity 0 000 | x", "synset offset '1930'"),
        ("00001930 03 v 01 entity 0 000 | x", "synset type 'v' does not belong in data.noun"),
        ("00001930 77 n 01 entity 0 000 | x", "lexicographer file '77'"),
        ("00001930 03 n 0g entity 0 000 | x", "word count '0g'"),
        ("00001930 03 n 00 000 | x", "word count '00'"),
        ("00001930 03 n 05 entity 0 000 | x", "ends before its pointer count"),
        ("00001930 03 n 01 entity 0 @ | x", "pointer count '@'"),
        ("00001930 03 n 01 entity 0 002 @ 00001740 n 0000 | x", "ends before its 2 pointers"),
        ("00001930 03 n 01 entity 0 001 @ 00001740 n 0000 more | x", "'more' follows the 1 pointers"),
        ("00001930 03 n 01 entity 0 001 ? 00001740 n 0000 | x", "pointer symbol '?'"),
        ("00001930 03 n 01 entity 0 001 @ 1740 n 0000 | x", "pointer offset '1740'"),
        ("00001930 03 n 01 entity 0 001 @ 00001740 x 0000 | x", "part of speech 'x'"),
        ("00001930 03 n 01 entity 0 001 @ 00001740 n 00 | x", "source/target '00'"),
        ("00001930 03 n 01 entity 0 001 @ 00001740 n 0001 | x", "joins a word and a whole synset"),
        ("00001930 03 n 01 entity 0 001 @ 00001740 n 0201 | x", "starts at word 2 of 1"),
        ("00001930 03 n 01 entity 0 000 | x\0", "NUL"),
    ],
)
def test_a_broken_line_is_refused_with_its_problem(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + ".*" + problem.replace("?", r"\?")):
        parse_synset(line, NOUN)


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        ("02 + 01 00", "2 verb frames take 6 fields, and there are 3"),
        ("01 - 01 00", "is not '\\+ frame word'"),
        ("01 + xx 00", "verb frame 'xx'"),
        ("x", "frame count 'x'"),
    ],
)
def test_broken_verb_frames_are_refused(frames: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_synset(f"00240638 30 v 01 breathe 3 000 {frames} | x", VERB)


def test_there_is_a_name_for_every_lexicographer_file() -> None:
    assert len(LEX_FILES) == 45
    assert (LEX_FILES[0], LEX_FILES[3], LEX_FILES[29], LEX_FILES[44]) == (
        "adj.all",
        "noun.Tops",
        "verb.body",
        "adj.ppl",
    )


def test_the_license_and_empty_lines_are_no_synsets(tmp_path: Path) -> None:
    license_lines = "  1 Free to use.\r\n  2   \r\n"
    (tmp_path / "data.noun").write_bytes((license_lines + PHYSICAL_ENTITY + "\r\n").encode())
    assert [synset.offset for synset in read_synsets(tmp_path, NOUN)] == ["00001930"]
    assert read_license(tmp_path, NOUN) == "Free to use.\n"


def test_a_broken_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "data.noun"
    path.write_text(f"  1 license\n{PHYSICAL_ENTITY.strip()}\n00001931 03 n 01 entity 0 00x | y\n")
    with pytest.raises(SampleInvalid) as caught:
        list(read_synsets(tmp_path, NOUN))
    assert str(caught.value) == f"{path}, line 3: pointer count '00x' is not a number"


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_bytes(b"00001930 03 n 01 caf\xe9 0 000 | y\n")
    with pytest.raises(SampleInvalid, match="line 1: 'utf-8' codec"):
        list(read_synsets(tmp_path, NOUN))


def test_two_synsets_of_one_offset_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(PHYSICAL_ENTITY.replace("\r", "") * 2)
    with pytest.raises(SampleInvalid, match="line 2: synset offset 00001930 does not follow 00001930"):
        list(read_synsets(tmp_path, NOUN))
