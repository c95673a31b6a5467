"""The ISO code lists that pycountry carries, record by record."""

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
