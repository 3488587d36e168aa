"""Draws kit packs: outer label, return label, tube labels and request form, one PDF for a print batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from integrations.labels.pack import PAGE_MM, KitPack, PageKind, Place, Tube, places
from integrations.labels.paper import CannotPrint, DoesNotFit, Face, Pen, printable, width_pt
from integrations.labels.wording import Words, wording
from models.rules.errors import Code, ServiceError
from models.rules.kit import show_kit_code, show_tube_code
from models.rules.service import Paper
from models.rules.vocabulary import Language

UN3373_SIDE_MM: Final = 51.0
"""The mark's side must be at least 50 mm; drawn at exactly 50 it measured 49.96. Source: P650; sms-and-post.md B3."""

UN3373_LINE_MM: Final = 2.2
"""The mark's line must be at least 2 mm. Source: P650."""

UN3373_NUMBER_PT: Final = 26.0
"""6.7 mm capitals: letters and digits must be at least 6 mm high. Source: P650."""

SHIPPING_NAME: Final = ("BIOLOGICAL SUBSTANCE,", "CATEGORY B")
"""The proper shipping name, beside the mark, in English in every language. Source: P650."""

SHIPPING_NAME_PT: Final = 24.5
"""6.3 mm capitals. Source: P650, at least 6 mm."""

CUT_MM: Final = 0.1
"""The line to cut along, on sheets."""

TUBE_MODULE_MM: Final = 0.5
FORM_MODULE_MM: Final = 0.75

_ADDRESS_SIZES: Final = (14.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0)
_SMALL_SIZES: Final = (8.0, 7.5, 7.0)


def draw_packs(packs: Sequence[KitPack], paper: Paper = Paper.THERMAL) -> bytes:
    """One PDF for a print batch: the pages of each pack in order, or on sheets. The same packs give the same bytes.

    Raises ServiceError(BAD_INPUT) that names the kit whose words have no room or can't be printed:
    nothing is cut short, shrunk below 7 pt or drawn as an empty box.
    """
    pen = Pen()
    tray = _Tray(pen, places(packs, paper)) if paper is Paper.A4 else _Roll(pen)
    drawn: set[Language] = set()
    for pack in packs:
        try:
            if pack.language not in drawn:
                _draw_artwork(pen, pack.language)
                drawn.add(pack.language)
            _draw_pack(pen, tray, pack)
        except DoesNotFit:
            raise _refusal(pack, "holds words that have no room on its labels; shorten them") from None
        except CannotPrint:
            raise _refusal(pack, "holds a character that labels can't print; ask how to write it") from None
    tray.close()
    return pen.finish()


def _refusal(pack: KitPack, why: str) -> ServiceError:
    shown = show_kit_code(pack.kit_code)
    return ServiceError(Code.BAD_INPUT, f"Kit {shown} {why}, then print the batch again.", ref=pack.kit_code)


def _draw_pack(pen: Pen, tray: "_Roll | _Tray", pack: KitPack) -> None:
    words = wording(pack.language)
    _outer(pen, pack)
    tray.page(PageKind.OUTER, pack.language)
    _return(pen, pack, words)
    tray.page(PageKind.RETURN, pack.language)
    for tube in pack.tubes:
        _tube(pen, tube, pack.language)
        tray.page(PageKind.TUBE, pack.language)
    _form(pen, pack, words)
    tray.page(PageKind.FORM, pack.language)


@dataclass(slots=True)
class _Roll:
    """Each label is a page."""

    pen: Pen

    def page(self, kind: PageKind, language: Language) -> None:
        self.pen.page(*PAGE_MM[kind], _artwork_name(kind, language))

    def close(self) -> None:
        """Nothing waits."""


@dataclass(slots=True)
class _Tray:
    """Labels gather on sheets; a sheet is done once all that belongs on it was drawn."""

    pen: Pen
    places: Iterator[Place]
    sheets: dict[int, tuple[tuple[float, float], list[str]]] = field(default_factory=dict)

    def page(self, kind: PageKind, language: Language) -> None:
        place = next(self.places)
        self.pen.frame(0, 0, *PAGE_MM[kind], CUT_MM)
        _, cells = self.sheets.setdefault(place.sheet, (place.size_mm, []))
        cells.append(self.pen.cell(place.x_mm, place.y_mm, _artwork_name(kind, language)))
        if kind is PageKind.FORM:
            self._finish(below=place.sheet)

    def close(self) -> None:
        """The last sheet, too."""
        self._finish(below=None)

    def _finish(self, *, below: int | None) -> None:
        for sheet in sorted(self.sheets):
            if below is None or sheet < below:
                size, cells = self.sheets.pop(sheet)
                self.pen.sheet(*size, cells)


def _artwork_name(kind: PageKind, language: Language) -> str:
    return f"{kind.value}-{language.value}"


def _draw_artwork(pen: Pen, language: Language) -> None:
    """What is the same for every kit in a language, drawn once for the document."""
    static = {
        PageKind.OUTER: _outer_artwork,
        PageKind.RETURN: _return_artwork,
        PageKind.TUBE: _tube_artwork,
        PageKind.FORM: _form_artwork,
    }
    for kind, draw in static.items():
        with pen.artwork(_artwork_name(kind, language), *PAGE_MM[kind]):
            draw(pen, wording(language))


# ── outer address label: nothing that betrays the content ────────────────────────────────────


def _outer_artwork(pen: Pen, words: Words) -> None:
    pen.frame(61.6, 117.4, 35, 30)  # postage goes here
    pen.rule(5, 25, 91.6)
    pen.text(5, 20.8, words["return_to"], 8)


def _outer(pen: Pen, pack: KitPack) -> None:
    name = (printable(pack.addressee), Face.BOLD)
    pen.block(10, 112, 84, 56, [name, *_plain(pack.recipient_lines)], _ADDRESS_SIZES)
    pen.code_128(5, 36, 91.6, 14, pack.parcel_code)
    pen.text(_centred(50.8, pack.parcel_code, 9), 31.5, pack.parcel_code, 9)
    pen.block(5, 19.4, 91.6, 15, _plain(pack.sender_lines), _SMALL_SIZES)


# ── return label: to the laboratory, with the mark that the law asks for ─────────────────────


def _return_artwork(pen: Pen, _words: Words) -> None:
    pen.diamond(50.8, 68, UN3373_SIDE_MM, UN3373_LINE_MM)
    pen.text(_centred(50.8, "UN3373", UN3373_NUMBER_PT, Face.BOLD), 64.8, "UN3373", UN3373_NUMBER_PT, Face.BOLD)
    for line, baseline in zip(SHIPPING_NAME, (24.0, 15.8), strict=True):
        natural = width_pt(line, Face.PLAIN, SHIPPING_NAME_PT) * 25.4 / 72
        narrowed = min(1.0, 94 / natural)
        pen.text(50.8 - natural * narrowed / 2, baseline, line, SHIPPING_NAME_PT, Face.PLAIN, narrowed)


def _return(pen: Pen, pack: KitPack, words: Words) -> None:
    lab = [(printable(pack.lab_name), Face.BOLD), *_plain(pack.lab_lines)]
    pen.block(5, 149.4, 91.6, 20.5, lab, _ADDRESS_SIZES[2:])
    if pack.return_tracking:
        pen.code_128(3, 112.5, 95.6, 14.5, pack.return_tracking)
        pen.text(_centred(50.8, pack.return_tracking, 9), 108.3, pack.return_tracking, 9)
    else:
        pen.frame(5, 105.6, 91.6, 22)
        pen.text(_centred(50.8, words["return_label_here"], 7.5), 115.5, words["return_label_here"], 7.5)
    sender = printable(f"{words['sender']} {', '.join(pack.sender_lines)}")
    person = printable(f"{words['responsible']} {pack.responsible_person}, {pack.responsible_phone}")
    pen.block(4, 13.2, 93.6, 12, _plain((sender, person)), _SMALL_SIZES)


# ── tube label ───────────────────────────────────────────────────────────────────────────────


def _tube_artwork(pen: Pen, words: Words) -> None:
    for baseline, word, end in ((10.8, "name", 48.0), (6.5, "born", 48.0), (2.2, "taken", 48.0)):
        pen.text(2, baseline + 0.2, words[word], 7)
        start = 2 + width_pt(words[word], Face.PLAIN, 7) * 25.4 / 72 + 1
        pen.rule(start, baseline - 0.4, end - start)


def _tube(pen: Pen, tube: Tube, language: Language) -> None:
    number = tube.tube_code[-1]
    pen.text(2, 20.8, f"{number}  {wording(language)['specimens'][tube.specimen]}", 9, Face.BOLD)
    if language is not Language.ENGLISH:
        pen.text(2, 17.8, wording(Language.ENGLISH)["specimens"][tube.specimen], 7)
        pen.text(2, 14.4, show_tube_code(tube.tube_code), 8)
    else:
        pen.text(2, 16.6, show_tube_code(tube.tube_code), 8)
    pen.data_matrix(40, 15.6, tube.tube_code, TUBE_MODULE_MM)


# ── request form ─────────────────────────────────────────────────────────────────────────────

_FORM_COLUMNS: Final = ((10.0, 44.0), (56.0, 40.0), (98.0, 24.0), (124.0, 14.0))
"""Left edge and width of the columns: sample, tests, date taken, time."""

_FORM_TABLE_TOP: Final = 138.0
_FORM_TABLE_FLOOR: Final = 56.0


def _form_artwork(pen: Pen, words: Words) -> None:
    pen.text(10, 196, words["form_title"], 15, Face.BOLD)
    pen.text(10, 189.4, words["kit"], 8)
    pen.text(10, 158.8, words["name"], 8)
    pen.text(98, 158.8, words["date_of_birth"], 8)
    headings = ("sample", "tests", "date_taken", "time_taken")
    for (left, _), heading in zip(_FORM_COLUMNS, headings, strict=True):
        pen.text(left, _FORM_TABLE_TOP + 1.6, words[heading], 8, Face.BOLD)
    pen.rule(10, _FORM_TABLE_TOP, 128, 0.4)
    pen.block(10, 54.5, 128, 8, _plain((words["declaration"],)), _SMALL_SIZES)
    pen.text(10, 41.4, words["signature"], 8)
    pen.rule(30, 40.6, 62)
    pen.text(98, 41.4, words["date"], 8)
    pen.rule(112, 40.6, 26)
    pen.frame(8, 6, 132, 31, 0.5)
    pen.text(11, 32.4, words["for_the_laboratory"], 8, Face.BOLD)
    for left, word in ((76, "lab_received"), (108, "lab_accession")):
        pen.block(left, 31, 28, 6, _plain((words[word],)), _SMALL_SIZES[2:])
        pen.rule(left, 19.4, 28)
    pen.text(76, 15.4, words["lab_remarks"], 7)
    pen.rule(76, 8.6, 60)


def _form(pen: Pen, pack: KitPack, words: Words) -> None:
    pen.text(10, 182, show_kit_code(pack.kit_code), 17, Face.BOLD)
    pen.text(10, 175.4, f"{words['post_before']} {pack.kit_expires_on:%d/%m/%Y}", 8)
    pen.code_128(6, 164, 62.4, 9, pack.kit_code)
    pen.data_matrix(126 - 1.5, 182, pack.kit_code, FORM_MODULE_MM)
    pen.block(10, 157.6, 84, 15, [(printable(pack.recipient_name), Face.BOLD)], _ADDRESS_SIZES[2:])
    pen.text(98, 153.6, f"{pack.date_of_birth:%d/%m/%Y}", 11, Face.BOLD)
    top = _FORM_TABLE_TOP
    for tube in pack.tubes:
        top = _form_row(pen, tube, pack.language, top)
    pen.block(11, 31, 62, 24, _plain((pack.lab_name, *pack.lab_lines)), _SMALL_SIZES)


def _form_row(pen: Pen, tube: Tube, language: Language, top: float) -> float:
    """One sample's row; returns where the next begins. English stands under the Welsh for the laboratory."""
    languages = dict.fromkeys((language, Language.ENGLISH))
    names = [wording(each)["specimens"][tube.specimen] for each in languages]
    tests = [", ".join(wording(each)["infections"][test] for test in tube.tests) for each in languages]
    sample = [(f"{tube.tube_code[-1]}  {names[0]}", Face.BOLD), *_plain(names[1:])]
    sample.append((show_tube_code(tube.tube_code), Face.PLAIN))
    room = top - 1.2 - _FORM_TABLE_FLOOR
    (left, width), (tests_left, tests_width), *written = _FORM_COLUMNS
    used = max(
        pen.block(left, top - 1.2, width, room, sample, _SMALL_SIZES[:1]),
        pen.block(tests_left, top - 1.2, tests_width, room, _plain(tests), _SMALL_SIZES[:1]),
    )
    bottom = top - 1.2 - used - 1.2
    for column, across in ((left, tests_left + tests_width - left), *written):
        pen.rule(column, bottom, across)
    return bottom


# ── shared ───────────────────────────────────────────────────────────────────────────────────


def _plain(lines: Iterable[str]) -> list[tuple[str, Face]]:
    return [(printable(line), Face.PLAIN) for line in lines]


def _centred(middle: float, text: str, size_pt: float, face: Face = Face.PLAIN) -> float:
    """Where a line begins whose middle shall stand at `middle`, in millimetres."""
    return middle - width_pt(text, face, size_pt) * 25.4 / 72 / 2
