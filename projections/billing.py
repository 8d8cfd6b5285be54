"""Read model of price lists: every version that was ever published, since any may be asked for."""

from projections.store import Table, Writer
from schemas import billing as s
from schemas.units import Micros, Ordinal

NAME = "billing"
VERSION = 1

PRICE_LISTS = Table(
    "price_lists",
    s.PriceList,
    key=("name", "version"),
    columns="name TEXT NOT NULL, version INTEGER NOT NULL, valid_from INTEGER NOT NULL",
    values=lambda p: (p.name, p.version, p.valid_from),
)

STATEMENTS = PRICE_LISTS.create


def _published(writer: Writer, fact: s.PriceListPublished, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(PRICE_LISTS, fact.price_list, ordinal)


APPLY = {s.PriceListPublished: _published}
