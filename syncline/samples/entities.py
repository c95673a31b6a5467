"""The ISO code lists that pycountry carries, as entities: a name, a definition, and facts in sentences."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata, resources

from syncline.errors import SampleInvalid

Record = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Standard:
    """One code list: what it is called, where it lives, and which fields its records have."""

    name: str
    title: str
    uri: str
    database: str
    file: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def source_id(self) -> str:
        """Key of its raw source."""
        return f"standard:{self.name.lower().replace(' ', '-')}"

    def records(self) -> Iterator[Record]:
        """Yield the records in the list's order, or raise SampleInvalid if one lacks a required field."""
        version = pycountry_version()
        import pycountry

        database: Iterable[object] = getattr(pycountry, self.database)
        for entry in database:
            record: Record = {}
            for field in (*self.required, *self.optional):
                value = getattr(entry, field, None)
                if isinstance(value, str) and value:
                    record[field] = value
                elif field in self.required:
                    raise SampleInvalid(f"pycountry {version}, {self.name}: {entry} has no {field}")
            yield record

    def sha256(self) -> str:
        """Return the digest of the list's file."""
        path = resources.files("pycountry").joinpath("databases", self.file)
        return hashlib.sha256(path.read_bytes()).hexdigest()


COUNTRIES = Standard(
    name="ISO 3166-1",
    title="Codes for the representation of names of countries and their subdivisions: country codes",
    uri="https://www.iso.org/iso-3166-country-codes.html",
    database="countries",
    file="iso3166-1.json",
    required=("alpha_2", "alpha_3", "numeric", "name"),
    optional=("official_name", "common_name", "flag"),
)
SUBDIVISIONS = Standard(
    name="ISO 3166-2",
    title="Codes for the representation of names of countries and their subdivisions: subdivision codes",
    uri="https://www.iso.org/iso-3166-country-codes.html",
    database="subdivisions",
    file="iso3166-2.json",
    required=("code", "country_code", "name", "type"),
    optional=("parent_code",),
)
LANGUAGES = Standard(
    name="ISO 639-3",
    title="Codes for the representation of names of languages: alpha-3 codes for all languages",
    uri="https://iso639-3.sil.org/",
    database="languages",
    file="iso639-3.json",
    required=("alpha_3", "name", "scope", "type"),
    optional=("alpha_2", "bibliographic", "common_name", "inverted_name"),
)
CURRENCIES = Standard(
    name="ISO 4217",
    title="Codes for the representation of currencies",
    uri="https://www.iso.org/iso-4217-currency-codes.html",
    database="currencies",
    file="iso4217.json",
    required=("alpha_3", "numeric", "name"),
)
SCRIPTS = Standard(
    name="ISO 15924",
    title="Codes for the representation of names of scripts",
    uri="https://www.unicode.org/iso15924/",
    database="scripts",
    file="iso15924.json",
    required=("alpha_4", "numeric", "name"),
)
STANDARDS = (COUNTRIES, SUBDIVISIONS, LANGUAGES, CURRENCIES, SCRIPTS)


def pycountry_version() -> str:
    """Return the installed version of pycountry, or raise SampleInvalid saying how to install it."""
    try:
        import pycountry  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise SampleInvalid(
            "The sample 'world' reads pycountry, which is not installed: "
            'pip install "syncline[dev-stack]" brings it.'
        ) from error
    return metadata.version("pycountry")


_LANGUAGE_TYPES = {
    "A": "an ancient",
    "C": "a constructed",
    "E": "an extinct",
    "H": "a historical",
    "L": "a living",
}
_LANGUAGE_SCOPES = {"I": "individual language", "M": "macrolanguage"}


@dataclass(frozen=True, kw_only=True)
class Entity:
    """One record as a node; `facts` are sentences by name."""

    standard: Standard
    node_type: str
    code: str
    definition: str
    facts: dict[str, str]
    record: Record
    parent_id: str | None = None

    @property
    def node_id(self) -> str:
        """Key of the node."""
        return f"{self.node_type}:{self.code}"

    def fact_id(self, name: str) -> str:
        """Return the key of one of its facts."""
        return f"fact:{self.node_id}:{name}"


def entities() -> Iterator[Entity]:
    """Yield every record of every list; a subdivision may come before its parent."""
    names = {record["alpha_2"]: record["name"] for record in COUNTRIES.records()}
    subdivisions = {record["code"]: record["name"] for record in SUBDIVISIONS.records()}
    yield from map(_country, COUNTRIES.records())
    for record in SUBDIVISIONS.records():
        yield _subdivision(record, names, subdivisions)
    yield from map(_language, LANGUAGES.records())
    yield from map(_currency, CURRENCIES.records())
    yield from map(_script, SCRIPTS.records())


def _country(record: Record) -> Entity:
    name, alpha_2 = record["name"], record["alpha_2"]
    codes = f"{alpha_2}, {record['alpha_3']} and {record['numeric']}"
    facts = {"codes": f"ISO 3166-1 assigns the codes {codes} to {name}."}
    definition = f"{name} is listed in ISO 3166-1 with the codes {codes}"
    if "official_name" in record:
        facts["official_name"] = f"The official name of {name} in ISO 3166-1 is {record['official_name']}."
        definition += f" and the official name {record['official_name']}"
    if "common_name" in record:
        facts["common_name"] = f"{name} is commonly called {record['common_name']}."
    if "flag" in record:
        facts["flag"] = f"The flag of {name} as an emoji is {record['flag']}."
    return Entity(
        standard=COUNTRIES,
        node_type="country",
        code=alpha_2,
        definition=f"{definition}.",
        facts=facts,
        record=record,
    )


def _subdivision(record: Record, countries: Record, subdivisions: Record) -> Entity:
    name, code, country = record["name"], record["code"], _named(countries, record["country_code"], record)
    what = f'a subdivision of {country} of the type "{record["type"]}"'
    facts = {"code": f"ISO 3166-2 assigns the code {code} to {name}, {what}."}
    definition = f"{name} ({code}) is {what}"
    parent_id = f"country:{record['country_code']}"
    if "parent_code" in record:
        parent = f"{_named(subdivisions, record['parent_code'], record)} ({record['parent_code']})"
        facts["parent"] = f"In ISO 3166-2, {name} ({code}) is part of {parent}."
        definition += f", within {parent}"
        parent_id = f"subdivision:{record['parent_code']}"
    return Entity(
        standard=SUBDIVISIONS,
        node_type="subdivision",
        code=code,
        definition=f"{definition}.",
        facts=facts,
        record=record,
        parent_id=parent_id,
    )


def _named(names: Record, code: str, record: Record) -> str:
    if code not in names:
        raise SampleInvalid(f"ISO 3166-2 in pycountry: {record['code']} lies in {code}, which is not listed.")
    return names[code]


def _language(record: Record) -> Entity:
    name, code = record["name"], record["alpha_3"]
    facts = {"code": f"ISO 639-3 assigns the code {code} to {name}."}
    if record["type"] in _LANGUAGE_TYPES and record["scope"] in _LANGUAGE_SCOPES:
        kind = f"{_LANGUAGE_TYPES[record['type']]} {_LANGUAGE_SCOPES[record['scope']]}"
        facts["kind"] = f"ISO 639-3 lists {name} ({code}) as {kind}."
    else:
        # "Uncoded languages", "No linguistic content" and the like.
        kind = "an identifier for special situations"
    if "alpha_2" in record:
        facts["alpha_2"] = f"The two-letter code of {name} ({code}) is {record['alpha_2']}."
    if "bibliographic" in record:
        facts["bibliographic"] = f"The bibliographic code of {name} ({code}) is {record['bibliographic']}."
    if "common_name" in record:
        facts["common_name"] = f"{name} ({code}) is commonly called {record['common_name']}."
    if "inverted_name" in record:
        facts["inverted_name"] = f'{name} ({code}) is sorted as "{record["inverted_name"]}".'
    return Entity(
        standard=LANGUAGES,
        node_type="language",
        code=code,
        definition=f"{name} ({code}) is {kind} in ISO 639-3.",
        facts=facts,
        record=record,
    )


def _currency(record: Record) -> Entity:
    # Not all of them are money: gold and "no currency is involved" have codes as well.
    sentence = (
        f'ISO 4217 assigns the codes {record["alpha_3"]} and {record["numeric"]} to "{record["name"]}".'
    )
    return Entity(
        standard=CURRENCIES,
        node_type="currency",
        code=record["alpha_3"],
        definition=sentence,
        facts={"codes": sentence},
        record=record,
    )


def _script(record: Record) -> Entity:
    sentence = (
        f'ISO 15924 assigns the codes {record["alpha_4"]} and {record["numeric"]} to "{record["name"]}".'
    )
    return Entity(
        standard=SCRIPTS,
        node_type="script",
        code=record["alpha_4"],
        definition=sentence,
        facts={"codes": sentence},
        record=record,
    )
