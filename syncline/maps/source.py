"""Source text: YAML or JSON -> data, with the line of each part.

YAML 1.2 in what plain words mean (`on`, `no` and `12:30` are texts), without tags. The parser's events are
read one by one, so that a text that is too deep, or too long once its aliases are followed, is refused early.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from syncline.quoting import shown

__all__ = ["LARGEST", "Place", "SourceFault", "parsed"]

LARGEST: Final = 1_000_000
"""Most bytes of a text in UTF-8: Temporal takes messages of 2 MB."""
_DEEPEST: Final = 30
_MOST_PARTS: Final = 100_000

_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Without libyaml, reading takes ten times as long."""


class SourceFault(Exception):
    """A text that is no map document at all. `path` has the keys down to the fault."""

    def __init__(self, line: int, problem: str, fix: str, path: tuple[str | int, ...] = ()) -> None:
        self.line, self.path, self.problem, self.fix = line, path, problem, fix
        super().__init__(problem)


@dataclass
class Place:
    """A part of the text: what it says, the line where it begins, and the places of its parts."""

    line: int
    data: object = None
    plain: bool = False
    """Whether it is a word without quotes."""
    entries: dict[str, "Place"] | None = None
    key_lines: dict[str, int] = field(default_factory=dict)
    items: list["Place"] | None = None

    def part(self, step: str | int) -> "tuple[str | int, int, Place] | None":
        """Return key, line and place of a part, by key or by position; None if there is none."""
        if self.items is not None:
            if isinstance(step, int) and step < len(self.items):
                return step, self.items[step].line, self.items[step]
            return None
        entries = self.entries or {}
        if isinstance(step, int):
            step = list(entries)[step] if step < len(entries) else ""
        return (step, self.key_lines[step], entries[step]) if step in entries else None

    def named(self, name: str) -> "tuple[str | int, int, Place] | None":
        """Return a part by its key, or an item of a list by what names it: one of its texts, or its text."""
        for position, item in enumerate(self.items or ()):
            if item.data == name or name in [each.data for each in (item.entries or {}).values()]:
                return self.part(position)
        return self.part(name)


def parsed(text: str) -> tuple[Place, list[SourceFault]]:
    """Return what a text says, and the keys that it says twice; raise SourceFault if it says nothing.

    Of a key that is given twice the first is taken.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise SourceFault(1, f"the text has more than {LARGEST:,} bytes", "Is this the file of a map?")
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{") and "\t" in text and _is_json(text):
        # Between the parts of JSON a tab is a space, and inside its texts there are none. YAML has no tabs.
        text = text.replace("\t", " ")
    try:
        reader = _Reader(yaml.parse(text, Loader=_LOADER))
        return reader.document(), reader.twice
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SourceFault(
            mark.line + 1 if mark else 1,
            f"this is no YAML: {error.problem or error.context}",
            "Check quotes, brackets and indentation, here and in the line above.",
        ) from None
    except yaml.reader.ReaderError as error:
        # The parser in C counts bytes.
        before = text.encode("utf-8", "surrogatepass")[: error.position]
        line = before.count(b"\n") + 1
        raise SourceFault(line, "this is no YAML: a character is not allowed", "Leave it out.") from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise SourceFault(line, "this is no text: a character is half of one", "Leave it out.") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        return False
    return True


class _Reader:
    """Builds the places of a document from the events of the parser."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self.twice: list[SourceFault] = []
        self._anchors: dict[str, Place | None] = {}
        self._parts = 0
        self._path: list[str | int] = []

    def document(self) -> Place:
        """Return the one document of the text."""
        self._next()  # the stream begins
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise SourceFault(1, "the text is empty", "Begin with `version: 1`, then `name:` and `tables:`.")
        place = self._place(self._next())
        self._next()  # the document ends
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._fault(event, "a second document begins", "Write one map in a text.", path=())
        return place

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _place(self, event: yaml.Event) -> Place:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise self._fault(event, "the map has too many parts", "Is this the file of a map?")
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event)
        if not isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent):
            raise self._fault(event, "this is no YAML", "Check quotes, brackets and indentation.")
        if event.tag is not None:
            raise self._fault(event, "tags (!) have no meaning in a map", "Leave the tag out.")
        if len(self._path) > _DEEPEST:
            raise self._fault(event, "it is nested too deeply", "A map needs eight levels at most.", path=())
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        place = Place(line=_line(event))
        if isinstance(event, yaml.ScalarEvent):
            place.plain = event.implicit[0]
            place.data = _meant(event.value) if place.plain else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            self._fill_sequence(place)
        else:
            self._fill_mapping(place)
        if event.anchor is not None:
            self._anchors[event.anchor] = place
        return place

    def _repeated(self, event: yaml.AliasEvent) -> Place:
        if event.anchor not in self._anchors:
            raise self._fault(event, f"there is no anchor &{event.anchor} above", "Define it above.")
        place = self._anchors[event.anchor]
        if place is None:
            raise self._fault(event, f"*{event.anchor} would contain itself", "Leave it out.")
        self._parts += _size(place)
        if self._parts > _MOST_PARTS:
            raise self._fault(event, "the map has too many parts", "Repeat less by aliases.")
        return place

    def _fill_sequence(self, place: Place) -> None:
        place.items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            self._path.append(len(place.items))
            place.items.append(self._place(event))
            self._path.pop()
        place.data = [item.data for item in place.items]

    def _fill_mapping(self, place: Place) -> None:
        place.entries = {}
        merged: dict[str, Place] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            merge = key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            self._path.append(key)
            value = self._place(self._next())
            line = _line(event)
            if merge:
                if value.entries is None:
                    raise self._fault(event, "<< takes the alias of one mapping", "Write `<<: *name`.")
                merged = {**value.entries, **merged}
            elif key in place.entries:
                problem = f"key {shown(key)} is given twice, first in line {place.key_lines[key]}"
                self.twice.append(self._fault(event, problem, "Leave one of them out."))
            else:
                place.entries[key] = value
                place.key_lines[key] = line
            self._path.pop()
        for name, value in merged.items():
            if name not in place.entries:
                place.entries[name] = value
                place.key_lines[name] = value.line
        place.data = {name: value.data for name, value in place.entries.items()}

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent):
            place = self._repeated(event)
            if isinstance(place.data, str):
                return place.data
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                self._anchors[event.anchor] = Place(line=_line(event), data=event.value)
            # A name is what is written: `null`, `on` and `1` are names of columns here.
            text: str = event.value
            return text
        raise self._fault(event, "a key is not a name", "Write one name before the colon.")

    def _fault(
        self, event: yaml.Event, problem: str, fix: str, *, path: tuple[str | int, ...] | None = None
    ) -> SourceFault:
        line = _line(event)
        return SourceFault(line, problem, fix, tuple(self._path) if path is None else path)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _meant(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text


def _size(place: Place) -> int:
    parts = [*(place.items or ()), *(place.entries or {}).values()]
    return 1 + sum(_size(part) for part in parts)
