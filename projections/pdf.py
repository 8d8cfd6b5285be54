"""An invoice as PDF. Pure: the same invoice gives the same bytes.

Fonts lie beside the code, so that pages look alike wherever they are made. They have Latin, Greek,
Cyrillic, Hebrew and Arabic; Chinese, Japanese and Korean are written in the fonts that every reader
of PDF has; what none of them has is shown as a replacement character. Whatever somebody wrote is
shown as it stands: it is no markup, and does not turn around what stands beside it.
"""

import functools
import io
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import batched, groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from projections.paper import Paper, PaperLine

SANS, BOLD = "CumulogSans", "CumulogSans-Bold"
HAN, KANA, HANGUL = "STSong-Light", "HeiseiKakuGo-W5", "HYGothic-Medium"
UNKNOWN = "\ufffd"
SIZE = 8.0
# Points, of A4: two margins of 16 mm leave 178 mm.
MM = 72 / 25.4
MARGIN = 16 * MM
WIDTHS = tuple(width * MM for width in (9, 46, 32, 30, 20, 17, 24))
LINES = 500  # of one table: to break one over pages takes time that grows with its square
NUMBERS = frozenset({0, 3, 5, 6})  # columns that are flush right


def as_pdf(printed: Paper) -> bytes:
    """Return pages of A4."""
    from reportlab.lib import colors  # noqa: PLC0415  # a third of a second, and rarely needed
    from reportlab.lib.pagesizes import A4  # noqa: PLC0415  # as above
    from reportlab.lib.styles import ParagraphStyle  # noqa: PLC0415  # as above
    from reportlab.pdfgen.canvas import Canvas  # noqa: PLC0415  # as above
    from reportlab.platypus import (  # noqa: PLC0415  # as above
        LongTable,
        Paragraph,
        SimpleDocTemplate,
        Spacer,
        Table,
        TableStyle,
    )

    known = _fonts()
    plain = ParagraphStyle("plain", fontName=SANS, fontSize=SIZE, leading=1.3 * SIZE)
    right = plain.clone("right", alignment=2)
    plain.splitLongWords = right.splitLongWords = 1
    bold = plain.clone("bold", fontName=BOLD)
    bold_right = right.clone("bold_right", fontName=BOLD)
    head = plain.clone("head", textColor=colors.HexColor("#555555"))
    title = bold.clone("title", fontSize=18, leading=23, spaceAfter=5 * MM, leftIndent=-4)
    below, proof = plain.clone("below", leftIndent=-4), head.clone("proof", leftIndent=-4)

    def words(text: str, style: Any = plain) -> Any:
        return Paragraph(_markup(text, known), style)

    def cell(text: str, column: int, style: Any) -> Any:
        """Return short text as it is, which is laid out ten times as fast."""
        if text.isascii() and text.isprintable() and len(text) * SIZE * 0.5 < WIDTHS[column]:
            return text
        return words(text, style)

    def row(values: Iterable[str], style: Any, style_right: Any) -> list[Any]:
        return [cell(v, n, style_right if n in NUMBERS else style) for n, v in enumerate(values)]

    def table(lines: Sequence[PaperLine], *, is_last: bool) -> Any:
        rows = [row(heads, bold, bold_right)]
        rules: list[tuple[Any, ...]] = [
            ("FONT", (0, 0), (-1, -1), SANS, SIZE, 1.3 * SIZE),
            ("FONT", (0, 0), (-1, 0), BOLD, SIZE, 1.3 * SIZE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("RIGHTPADDING", (0, 0), (-1, -1), 2),
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey),
            ("LINEBELOW", (0, 0), (-1, 0), 0.75, colors.black),
            *(("ALIGN", (n, 0), (n, -1), "RIGHT") for n in NUMBERS),
        ]
        for line in lines:
            if not line.number:
                rules.append(("LINEABOVE", (0, len(rows)), (-1, len(rows)), 0.75, colors.black))
            number = str(line.number or "")
            values = (number, line.what, line.project, line.quantity, line.unit, line.price)
            rows.append(row((*values, line.amount), plain, right))
        if is_last:
            amount = cell(printed.total, 6, bold_right)
            rows.append(["", words(printed.total_word, bold), "", "", "", "", amount])
            rules += [
                ("FONT", (0, -1), (-1, -1), BOLD, SIZE, 1.3 * SIZE),
                ("LINEABOVE", (0, -1), (-1, -1), 1, colors.black),
                ("LINEBELOW", (0, -1), (-1, -1), 0, colors.white),
                ("SPAN", (1, -1), (5, -1)),
            ]
        return LongTable(
            rows, colWidths=WIDTHS, style=TableStyle(rules), repeatRows=1, splitInRow=1
        )

    heads = ("#", "What", "Project", "Quantity", "Unit", "Price", f"Amount ({printed.currency})")
    parts = [*batched(printed.lines, LINES)] or [()]
    tables = [table(part, is_last=part is parts[-1]) for part in parts]
    top = TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 2)])
    parties = [
        [words("From", head), words("To", head)],
        [words(printed.issuer), words(printed.customer)],
    ]
    facts = [[words(name, head), words(value)] for name, value in printed.facts]

    class Numbered(Canvas):  # type: ignore[misc]  # it has no types
        """Pages that know how many they are."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802  # its name there
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, 1):
                self.__dict__.update(page)
                self.setFont(SANS, 7)
                self.setFillGray(0.35)
                self.drawString(MARGIN, 9 * MM, printed.title)
                said = f"Page {number} of {len(self._pages)}"
                self.drawRightString(A4[0] - MARGIN, 9 * MM, said)
                super().showPage()
            super().save()

    out = io.BytesIO()
    SimpleDocTemplate(
        out, pagesize=A4, title=printed.title, author=printed.issuer.partition("\n")[0],
        leftMargin=MARGIN, rightMargin=MARGIN, topMargin=18 * MM, bottomMargin=18 * MM,
        invariant=1,
    ).build(
        [
            words(printed.title, title),
            Table(parties, colWidths=[89 * MM] * 2, style=top, splitInRow=1),
            Spacer(1, 6 * MM),
            Table(facts, colWidths=[36 * MM, 142 * MM], style=top, splitInRow=1),
            Spacer(1, 6 * MM),
            *tables,
            Spacer(1, 6 * MM),
            words(printed.terms, below),
            Spacer(1, 3 * MM),
            words(printed.proof, proof),
        ],
        canvasmaker=Numbered,
    )  # fmt: skip
    return out.getvalue()


@functools.cache
def _fonts() -> frozenset[int]:
    """Have the fonts known, once; return the characters that ours have."""
    from reportlab.pdfbase import pdfmetrics  # noqa: PLC0415  # as above
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont  # noqa: PLC0415  # as above
    from reportlab.pdfbase.ttfonts import TTFont  # noqa: PLC0415  # as above

    place = Path(__file__).parent / "fonts"
    faces = []
    for name, file in ((SANS, "DejaVuSans.ttf"), (BOLD, "DejaVuSans-Bold.ttf")):
        font = TTFont(name, place / file)
        pdfmetrics.registerFont(font)
        faces.append(frozenset(font.face.charToGlyph))
    for name in (HAN, KANA, HANGUL):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return faces[0] & faces[1]


def _markup(text: str, known: frozenset[int]) -> str:
    """Return text as reportlab's markup: as it is seen, each part in a font that has it."""
    return "<br/>".join(_line(line, known) for line in text.split("\n"))


def _line(line: str, known: frozenset[int]) -> str:
    shown = _visual("".join(c for c in line if unicodedata.category(c) not in {"Cc", "Cf", "Cs"}))
    has_kana = any("\u3040" <= c <= "\u30ff" for c in shown)
    parts: list[str] = []
    for font, characters in groupby(shown, key=lambda c: _font(c, known, has_kana)):
        run = escape("".join(characters))
        if font == UNKNOWN:
            run = UNKNOWN * len(run)
        parts.append(f'<font name="{font}">{run}</font>' if font in {HAN, KANA, HANGUL} else run)
    return "".join(parts)


def _visual(line: str) -> str:
    """Return text in the order in which it is seen, letters joined as they are written."""
    if not any(unicodedata.bidirectional(c) in {"R", "AL"} for c in line):
        return line
    from arabic_reshaper import reshape  # noqa: PLC0415  # seldom needed
    from bidi import get_display  # noqa: PLC0415  # as above

    seen = get_display(reshape(line))
    return seen if isinstance(seen, str) else seen.decode()


def _font(character: str, known: frozenset[int], has_kana: bool) -> str:
    """Return the font that has a character; "" is our own."""
    code = ord(character)
    if code in known:
        return ""
    if 0x1100 <= code <= 0x11FF or 0x3130 <= code <= 0x318F or 0xAC00 <= code <= 0xD7A3:
        return HANGUL
    if 0x3040 <= code <= 0x30FF or 0xFF61 <= code <= 0xFF9F:
        return KANA
    if 0x3000 <= code <= 0x303F or 0x3400 <= code <= 0x9FFF or 0xFF00 <= code <= 0xFFEF:
        return KANA if has_kana else HAN
    return UNKNOWN
