"""The rows of what was tallied: put in their order by DuckDB, and read a few at a time.

However many rows a month has, those in memory are one batch. Invariant: the bytes are those of
``ledger``'s rows as canonical JSON, in ``ledger``'s order, so that a digest over them is that of
``invoice``: all that differs between rows priced alike is put between pieces of one example.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec

from projections.ledger import Row, row_of
from projections.metering import Usage
from projections.pricing import Part
from projections.rating import SHOWN_DECIMALS
from projections.scratch import room
from projections.tally import Form, Tally

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 20_000
MEMORY_LIMIT = "512MB"
# What differs between rows that are priced alike, in the order of their names.
_OWN = (
    "amount", "base_quantity", "dimensions", "end", "first_ordinal", "last_ordinal", "list_amount",
    "quantity", "resource_id", "resource_kind", "start",
)  # fmt: skip
# Sorted in a step of its own: all at once takes more memory than there may be.
_GATHER = """
CREATE OR REPLACE TABLE gathered AS {charged}
SELECT forms.line, forms.form, forms.tier, forms.version, resource_kind, resource_id, dimensions,
    piece_start, piece_end, quantity, cost, list_cost, units, first_ordinal, last_ordinal,
    forms.places, forms.unit, bare
FROM charged JOIN forms ON forms.project_id = charged.project_id
    AND forms.priced = charged.priced AND forms.tier = charged.tier
"""
_SORT = """
CREATE OR REPLACE TABLE drawn AS SELECT * EXCLUDE (tier, version) FROM gathered
ORDER BY line, resource_kind, resource_id, piece_start, piece_end, tier, version, first_ordinal,
    last_ordinal, replace(dimensions, '"', chr(1)), quantity::VARCHAR
"""
_MONEY = "({0} // unit)::VARCHAR || '.' || lpad(({0} % unit)::VARCHAR, places, '0')"
_UNIT = 10**SHOWN_DECIMALS
_READ = f"""
SELECT form, line,
    CASE WHEN bare THEN '0' ELSE {_MONEY.format("cost")} END AS amount,
    quantity::VARCHAR AS base_quantity,
    CASE dimensions WHEN '{{{{}}}}' THEN '' ELSE '"dimensions":' || dimensions || ',' END
        AS dimensions,
    piece_end::VARCHAR AS end, first_ordinal::VARCHAR AS first_ordinal,
    last_ordinal::VARCHAR AS last_ordinal, {_MONEY.format("list_cost")} AS list_amount,
    (units // {_UNIT})::VARCHAR || '.' || lpad((units % {_UNIT})::VARCHAR, {SHOWN_DECIMALS}, '0')
        AS quantity,
    resource_id, resource_kind, piece_start::VARCHAR AS start
FROM drawn WHERE line BETWEEN {{first}} AND {{last}}
"""  # noqa: S608  # our own words

_encode = msgspec.json.Encoder(order="sorted").encode
_decode_lines = msgspec.json.Decoder(Row).decode_lines


class Drawn:
    """The rows of one tally, drawn up once they are asked for. Lines count as in its forms."""

    def __init__(self, db: duckdb.DuckDBPyConnection, found: Tally) -> None:
        """``db`` is the tally's; what does not fit into memory it puts beside its file."""
        self._db = db
        self._tally = found
        self._frames: list[pa.Array] | None = None

    def texts(self, first: int, last: int) -> Iterator[memoryview]:
        """Yield the rows of these lines as JSON lines, some at a time; the last one counts too.

        Raises:
            Unavailable: there is not enough room on the disk.
        """
        for text, _ in self._batches(first, last):
            yield text

    def rows(self, first: int, last: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows of these lines with their lines; the last one counts too.

        Raises:
            Unavailable: there is not enough room on the disk.
        """
        for text, lines in self._batches(first, last):
            yield from zip(lines.to_pylist(), _decode_lines(text), strict=True)

    def _batches(self, first: int, last: int) -> Iterator[tuple[memoryview, "pa.Array"]]:
        with room("the rows of a month"):
            frames = self._drawn()
            # A cursor of its own: another may be read at the same time.
            asked = self._db.cursor().sql(_READ.format(first=first, last=last))
            for batch in asked.to_arrow_reader(BATCH_ROWS):
                yield _joined(batch, frames), batch.column("line")

    def _drawn(self) -> "list[pa.Array]":
        """Draw the rows up, once; return what lies between what is their own."""
        frames = self._frames
        if frames is None:
            self._draw()
            frames = self._frames = _frames(self._tally.forms)
        return frames

    def _draw(self) -> None:
        db = self._db
        db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        db.execute(
            "CREATE OR REPLACE TEMP TABLE forms (project_id VARCHAR, priced INTEGER, tier INTEGER, "
            "form INTEGER, line INTEGER, version INTEGER, places INTEGER, unit BIGINT)"
        )
        with db.appender("forms") as appender:
            for number, form in enumerate(self._tally.forms):
                of = form.priced
                appender.append_row(
                    form.project_id, form.number, form.step.tier, number, form.line, of.version,
                    of.places, 10**of.places,
                )  # fmt: skip
        try:
            self._gather(self._tally.number)
        except (duckdb.OutOfRangeException, duckdb.ConversionException):
            # What a discount is taken off is larger than what was summed up.
            self._gather("HUGEINT")
        db.execute(_SORT)
        db.execute("DROP TABLE gathered")

    def _gather(self, number: str) -> None:
        charged = self._tally.charged.format(number=number)
        self._db.execute(_GATHER.replace("{charged}", charged))


def _frames(forms: Sequence[Form]) -> "list[pa.Array]":
    """Return by form what lies before, between and after what is a row's own."""
    import pyarrow as pa  # noqa: PLC0415  # as DuckDB: an idle archiver need not hold it

    by_form = [_pieces(_example(form)) for form in forms]
    return [pa.array(column, pa.string()) for column in zip(*by_form, strict=True)]


def _example(form: Form) -> Row:
    of = form.priced
    assert of.rule is not None, "what has no rule has no rows"
    assert of.price_list is not None, "rules are a price list's"
    usage = Usage(
        resource_kind="-",
        resource_id="-",
        project_id=form.project_id,
        meter=of.meter.key,
        meter_version=of.meter.version,
        dimensions={},
        value=1,
        quantity=1,
        start=1,
        end=2,
        first_ordinal=1,
        last_ordinal=1,
    )
    part = Part(
        usage=usage,
        price_list=of.price_list,
        rule=of.rule,
        model=of.rule.model,
        quantity=1,
        tier=form.step.tier,
        price=form.step.price,
        discount=of.discount,
        list_amount=Decimal(1),
        amount=Decimal(1),
    )
    return row_of(part, of.meter)


def _pieces(example: Row) -> list[str]:
    """Return the example's JSON, cut where something is a row's own.

    ``dimensions`` come with their name, since those without any have not even that.
    """
    said: Mapping[str, Any] = msgspec.to_builtins(example)
    pieces, text = [], "{"
    for name in sorted(Row.__struct_fields__):
        if name == "dimensions":
            pieces.append(text)
            text = ""
        elif name in _OWN:
            quote = '"' if isinstance(said[name], str) and not name.startswith("resource") else ""
            pieces.append(f'{text}"{name}":{quote}')
            text = f"{quote},"
        elif name in said:
            text += f'"{name}":{_encode(said[name]).decode()},'
    return [*pieces, text.removesuffix(",") + "}\n"]


def _joined(batch: "pa.RecordBatch", frames: "Sequence[pa.Array]") -> memoryview:
    """Return the rows of a batch, one after the other."""
    import pyarrow as pa  # noqa: PLC0415  # as above
    from pyarrow import compute as pc  # noqa: PLC0415

    form = batch.column("form")
    parts: list[Any] = []
    for name, before in zip(_OWN, frames, strict=False):
        own = batch.column(name)
        parts += before.take(form), _quoted(own) if name.startswith("resource") else own
    parts.append(frames[-1].take(form))
    text = pc.binary_join_element_wise(*parts, "")
    assert text.offset == 0, "an array of its own"
    offsets = memoryview(text.buffers()[1]).cast("i")
    assert pa.types.is_string(text.type), "32-bit offsets"
    return memoryview(text.buffers()[2])[: offsets[len(text)]]


def _quoted(names: "pa.Array") -> "pa.Array":
    """Return texts as JSON has them."""
    import pyarrow as pa  # noqa: PLC0415  # as above

    found = names.dictionary_encode()
    said = pa.array((_encode(name).decode() for name in found.dictionary.to_pylist()), pa.string())
    return said.take(found.indices)
