"""The pictures of the leaflet: each is drawn in a square of 100 by 100 units, origin at the bottom left.

Lines and two greys with one dark accent, so that a picture says the same on a black-and-white printer. No picture
shows more of a body than it needs, and none shows a particular skin.
"""

from collections.abc import Callable
from typing import Any, Final

from models.rules.vocabulary import Specimen

Draw = Callable[[Any], None]
"""Draws on a ReportLab canvas that is scaled to the square already."""

_INK: Final = (0.13, 0.13, 0.16)
_PALE: Final = (0.90, 0.90, 0.88)
_GREY: Final = (0.72, 0.72, 0.70)
_ACCENT: Final = (0.0, 0.27, 0.55)
_LINE: Final = 2.0


def _pen(canvas: Any, colour: tuple[float, float, float] = _INK, width: float = _LINE) -> None:
    canvas.setStrokeColorRGB(*colour)
    canvas.setFillColorRGB(*colour)
    canvas.setLineWidth(width)
    canvas.setLineCap(1)
    canvas.setLineJoin(1)
    canvas.setDash()


def _outline(canvas: Any, *moves: tuple[float, ...], fill: tuple[float, float, float] | None = None) -> None:
    """A path: two numbers go straight on, six curve. It is closed where it is filled."""
    path = canvas.beginPath()
    path.moveTo(*moves[0])
    for move in moves[1:]:
        (path.lineTo if len(move) == 2 else path.curveTo)(*move)  # noqa: PLR2004 - a point, or a curve's three
    if fill:
        path.close()
        canvas.setFillColorRGB(*fill)
    canvas.drawPath(path, stroke=1, fill=int(fill is not None))


def _arrow(canvas: Any, x: float, y: float, to_x: float, to_y: float) -> None:
    """An accent arrow: what to do."""
    _pen(canvas, _ACCENT, 3)
    length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
    along_x, along_y = (to_x - x) / length, (to_y - y) / length
    neck_x, neck_y = to_x - 7 * along_x, to_y - 7 * along_y
    canvas.line(x, y, neck_x, neck_y)
    path = canvas.beginPath()
    path.moveTo(to_x, to_y)
    path.lineTo(neck_x - 4.5 * along_y, neck_y + 4.5 * along_x)
    path.lineTo(neck_x + 4.5 * along_y, neck_y - 4.5 * along_x)
    path.close()
    canvas.drawPath(path, stroke=0, fill=1)
    _pen(canvas)


def _turn(canvas: Any, x: float, y: float) -> None:
    """An arrow round a stick: turn it."""
    _pen(canvas, _ACCENT, 2.6)
    canvas.arc(x - 12, y - 5, x + 12, y + 5, 150, 240)
    _pen(canvas, _ACCENT, 2.6)
    path = canvas.beginPath()
    path.moveTo(x + 13.5, y + 5.5)
    path.lineTo(x + 5.5, y + 4.5)
    path.lineTo(x + 11.5, y - 2.5)
    path.close()
    canvas.drawPath(path, stroke=0, fill=1)
    _pen(canvas)


def _measure(canvas: Any, x: float, low: float, high: float, words: str) -> None:
    """How deep: a line with ends, and its length beside it."""
    _pen(canvas, _ACCENT, 1.6)
    canvas.line(x, low, x, high)
    canvas.line(x - 3, low, x + 3, low)
    canvas.line(x - 3, high, x + 3, high)
    canvas.setFont("DejaVuSansCondensed-Bold", 10)
    middle = (low + high) / 2
    canvas.setFillColorRGB(1, 1, 1)
    canvas.rect(x + 3, middle - 6, 25, 12, stroke=0, fill=1)
    canvas.setFillColorRGB(*_ACCENT)
    canvas.drawString(x + 5, middle - 3.5, words)
    _pen(canvas)


def _swab(canvas: Any, x: float, low: float, high: float) -> None:
    """An upright swab, its soft end on top, with the line where it snaps."""
    _pen(canvas)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.roundRect(x - 1.3, low, 2.6, high - low - 8, 1.2, stroke=1, fill=1)
    canvas.setFillColorRGB(*_PALE)
    canvas.roundRect(x - 3, high - 14, 6, 14, 3, stroke=1, fill=1)
    _pen(canvas, _ACCENT, 2.4)
    line = low + (high - low) * 0.5
    canvas.line(x - 3.4, line, x + 3.4, line)
    _pen(canvas)


def _tube(canvas: Any, x: float, low: float, width: float, height: float, filled: float) -> None:
    """An open tube with round bottom, filled to a share of its height."""
    half, round_at = width / 2, low + width * 0.5
    level = low + filled * height
    _pen(canvas)
    _outline(
        canvas,
        (x - half, level),
        (x - half, round_at),
        (x - half, low - 1, x + half, low - 1, x + half, round_at),
        (x + half, level),
        fill=_GREY,
    )
    _outline(
        canvas,
        (x - half, low + height),
        (x - half, round_at),
        (x - half, low - 1, x + half, low - 1, x + half, round_at),
        (x + half, low + height),
    )
    canvas.line(x - half - 2.5, low + height, x - half, low + height)
    canvas.line(x + half, low + height, x + half + 2.5, low + height)


def _drop(canvas: Any, x: float, y: float, size: float = 4) -> None:
    _pen(canvas, _ACCENT, 1)
    _outline(
        canvas,
        (x, y + 2 * size),
        (x + size * 0.4, y + size, x + size, y + size * 0.5, x + size, y),
        (x + size, y - size * 1.3, x - size, y - size * 1.3, x - size, y),
        (x - size, y + size * 0.5, x - size * 0.4, y + size, x, y + 2 * size),
        fill=_ACCENT,
    )
    _pen(canvas)


# ── blood ────────────────────────────────────────────────────────────────────────────────────


def _warm_hands(canvas: Any) -> None:
    _pen(canvas)
    _outline(canvas, (8, 44), (14, 12, 30, 8, 50, 8), (70, 8, 86, 12, 92, 44), fill=_PALE)  # the bowl
    canvas.setFillColorRGB(*_GREY)
    canvas.ellipse(8, 36, 92, 52, stroke=1, fill=1)
    for mirrored in (1, -1):
        canvas.saveState()
        canvas.translate(50, 0)
        canvas.scale(mirrored, 1)
        # a hand from above: wrist, thumb, fingers that go under the water
        _outline(
            canvas,
            (40, 92),
            (30, 70, 30, 66, 26, 58),
            (24, 50, 20, 44, 16, 44),
            (10, 44, 10, 50, 8, 46),
            (4, 44, 4, 52, 8, 56),
            (12, 66, 10, 72, 22, 94),
            fill=(1, 1, 1),
        )
        canvas.restoreState()
    for x in (20, 80):
        _pen(canvas, _ACCENT, 1.8)
        _outline(canvas, (x, 56), (x + 5, 62, x - 5, 66, x, 72), (x + 5, 78, x - 5, 82, x, 88))
    _pen(canvas)


def _finger(canvas: Any) -> None:
    """A hand from the left whose longest finger points right and a little down."""
    _pen(canvas)
    _outline(
        canvas,
        (4, 84),
        (20, 86, 26, 80, 34, 76),
        (46, 70, 58, 66, 70, 60),
        (82, 55, 84, 44, 74, 43),
        (62, 43, 50, 48, 40, 52),
        (42, 46, 40, 42, 34, 42),
        (38, 36, 34, 30, 27, 32),
        (26, 26, 18, 26, 12, 32),
        (8, 34, 6, 36, 4, 38),
        fill=(1, 1, 1),
    )
    _outline(canvas, (34, 42), (30, 43, 27, 45, 24, 48))
    _outline(canvas, (27, 32), (23, 34, 20, 36, 18, 39))
    _outline(canvas, (72, 58), (78, 55, 79, 50, 76, 47))  # the nail


def _prick(canvas: Any) -> None:
    _finger(canvas)
    canvas.setFillColorRGB(*_GREY)
    canvas.saveState()
    canvas.translate(70, 42)
    canvas.rotate(-8)
    canvas.roundRect(-6, -30, 12, 29, 3, stroke=1, fill=1)  # the lancet
    canvas.setFillColorRGB(1, 1, 1)
    canvas.rect(-3, -4, 6, 4, stroke=1, fill=1)
    canvas.restoreState()
    _arrow(canvas, 86, 12, 83, 34)
    _drop(canvas, 40, 14, 5)


def _fill_tube(canvas: Any) -> None:
    canvas.saveState()
    canvas.translate(-2, 22)
    canvas.scale(0.9, 0.9)
    _finger(canvas)
    canvas.restoreState()
    _tube(canvas, 66, 6, 15, 36, 0.62)
    _pen(canvas, _ACCENT, 2.4)
    canvas.line(58, 6 + 36 * 0.72, 74, 6 + 36 * 0.72)
    _pen(canvas)
    _drop(canvas, 66, 49, 3.4)
    _arrow(canvas, 95, 6 + 36 * 0.72, 78, 6 + 36 * 0.72)
    _arrow(canvas, 14, 40, 40, 28)


# ── swabs ────────────────────────────────────────────────────────────────────────────────────


def _hold_swab(canvas: Any) -> None:
    _swab(canvas, 50, 8, 96)
    _pen(canvas)
    _outline(  # a finger and a thumb, from the right and the left
        canvas, (96, 62), (82, 66, 66, 62, 56, 56), (50, 52, 52, 45, 59, 46), (72, 50, 84, 48, 96, 46), fill=(1, 1, 1)
    )
    _outline(
        canvas, (4, 54), (18, 56, 32, 56, 43, 55), (50, 54, 50, 46, 43, 46), (32, 44, 18, 42, 4, 38), fill=(1, 1, 1)
    )
    _outline(canvas, (58, 55), (54, 53, 55, 49, 59, 49))
    _arrow(canvas, 80, 88, 58, 88)
    _pen(canvas, _ACCENT, 3)
    canvas.line(76, 82, 88, 94)
    canvas.line(88, 82, 76, 94)
    _pen(canvas)


def _hips(canvas: Any) -> None:
    """The body from waist to thighs."""
    _pen(canvas)
    _outline(canvas, (24, 98), (22, 84, 8, 74, 8, 56), (8, 38, 14, 20, 16, 4))
    _outline(canvas, (76, 98), (78, 84, 92, 74, 92, 56), (92, 38, 86, 20, 84, 4))
    _outline(canvas, (41, 4), (44, 18, 46, 30, 46, 36))
    _outline(canvas, (59, 4), (56, 18, 54, 30, 54, 36))


def _canal(canvas: Any, top: float) -> None:
    _pen(canvas, _GREY, 1.6)
    canvas.setDash(2.5, 3)
    _outline(canvas, (45, 36), (44, top - 6), (44, top + 4, 56, top + 4, 56, top - 6), (55, 36))
    _pen(canvas)


def _swab_in_vagina(canvas: Any) -> None:
    _hips(canvas)
    _outline(canvas, (46, 36), (34, 42, 24, 52, 16, 56))
    _outline(canvas, (54, 36), (66, 42, 76, 52, 84, 56))
    _canal(canvas, 76)
    _swab(canvas, 50, 2, 68)
    _turn(canvas, 50, 18)
    _measure(canvas, 66, 36, 68, "5 cm")


def _swab_in_bottom(canvas: Any) -> None:
    _hips(canvas)
    _outline(canvas, (46, 36), (38, 28, 24, 28, 13, 36))  # seen from behind
    _outline(canvas, (54, 36), (62, 28, 76, 28, 87, 36))
    _outline(canvas, (50, 66), (48, 74, 50, 78, 50, 84))
    _canal(canvas, 70)
    _swab(canvas, 50, 2, 57)
    _turn(canvas, 50, 16)
    _measure(canvas, 66, 36, 57, "3 cm")


def _swab_to_tube(canvas: Any) -> None:
    _tube(canvas, 34, 6, 22, 58, 0.45)
    canvas.saveState()
    canvas.translate(34, 58)
    canvas.rotate(180)
    _swab(canvas, 0, -2, 48)
    canvas.restoreState()
    canvas.saveState()  # the broken half
    canvas.translate(40, 68)
    canvas.rotate(-48)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.roundRect(-1.3, 0, 2.6, 26, 1.2, stroke=1, fill=1)
    canvas.restoreState()
    _arrow(canvas, 36, 92, 54, 88)
    _pen(canvas)  # the cap that follows
    canvas.setFillColorRGB(*_PALE)
    canvas.roundRect(66, 20, 26, 16, 3, stroke=1, fill=1)
    for x in (71, 76, 81, 86):
        canvas.line(x, 23, x, 33)
    _arrow(canvas, 79, 42, 58, 62)


# ── urine ────────────────────────────────────────────────────────────────────────────────────


def _wait_an_hour(canvas: Any) -> None:
    _pen(canvas)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.circle(50, 52, 36, stroke=1, fill=1)
    _outline(canvas, (50, 52), (50, 84), (62, 84 - 3, 80, 72, 81, 66), fill=_PALE)
    for x, y, to_x, to_y in ((50, 84, 50, 88), (86, 52, 82, 52), (50, 16, 50, 20), (14, 52, 18, 52)):
        canvas.line(x, y, to_x, to_y)
    _pen(canvas, _ACCENT, 3)
    canvas.line(50, 52, 50, 80)
    canvas.line(50, 52, 68, 62)
    _pen(canvas)
    canvas.circle(50, 52, 2.4, stroke=1, fill=1)
    _pen(canvas, _ACCENT, 2)
    canvas.setFont("DejaVuSansCondensed-Bold", 15)
    canvas.drawCentredString(50, 30, "1 h")
    _pen(canvas)


def _catch(canvas: Any) -> None:
    _pen(canvas)
    _outline(canvas, (24, 50), (30, 8), (70, 8), (76, 50), fill=(1, 1, 1))
    _outline(canvas, (28.3, 20), (30, 8), (70, 8), (71.7, 20), fill=_GREY)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.ellipse(24, 45, 76, 55, stroke=1, fill=1)
    _pen(canvas, _ACCENT, 4)
    _outline(canvas, (14, 96), (34, 92, 48, 80, 50, 50))
    _pen(canvas, _ACCENT, 1.8)
    canvas.setDash(3, 3)
    canvas.line(28.3, 20, 71.7, 20)
    _pen(canvas)
    _arrow(canvas, 94, 20, 78, 20)


def _between_lines(canvas: Any) -> None:
    _tube(canvas, 36, 6, 24, 76, 0.5)
    _pen(canvas, _ACCENT, 2.2)
    for level in (0.42, 0.60):
        canvas.line(24, 6 + 76 * level, 48, 6 + 76 * level)
    _pen(canvas)
    canvas.saveState()  # the dropper
    canvas.translate(36, 60)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.roundRect(-1.6, -2, 3.2, 22, 1.5, stroke=1, fill=1)
    canvas.setFillColorRGB(*_PALE)
    canvas.roundRect(-5, 19, 10, 17, 5, stroke=1, fill=1)
    canvas.restoreState()
    _arrow(canvas, 80, 6 + 76 * 0.42 - 13, 80, 6 + 76 * 0.42)
    _arrow(canvas, 80, 6 + 76 * 0.60 + 13, 80, 6 + 76 * 0.60)
    _pen(canvas, _ACCENT, 1.2)
    canvas.setDash(2, 2)
    for level in (0.42, 0.60):
        canvas.line(50, 6 + 76 * level, 90, 6 + 76 * level)
    _pen(canvas)


# ── throat ───────────────────────────────────────────────────────────────────────────────────


def _mouth(canvas: Any) -> None:
    _pen(canvas)
    _outline(  # lips
        canvas,
        (4, 50),
        (14, 80, 34, 98, 50, 90),
        (66, 98, 86, 80, 96, 50),
        (84, 16, 66, 4, 50, 4),
        (34, 4, 16, 16, 4, 50),
        fill=(1, 1, 1),
    )
    _outline(  # the open mouth
        canvas,
        (13, 50),
        (20, 74, 36, 84, 50, 82),
        (64, 84, 80, 74, 87, 50),
        (78, 22, 64, 12, 50, 12),
        (36, 12, 22, 22, 13, 50),
        fill=_GREY,
    )
    _outline(canvas, (24, 69), (34, 81, 66, 81, 76, 69), (62, 75, 38, 75, 24, 69), fill=(1, 1, 1))  # upper teeth
    _outline(canvas, (28, 24), (32, 44, 42, 42, 50, 39), (58, 42, 68, 44, 72, 24), (60, 13, 40, 13, 28, 24), fill=_PALE)
    _outline(canvas, (50, 38), (50, 24))  # the tongue's middle
    _outline(canvas, (46, 72), (46, 62, 45, 56, 50, 54), (55, 56, 54, 62, 54, 72), fill=_PALE)  # the uvula
    _outline(canvas, (19, 62), (30, 62, 33, 48, 22, 42), fill=_PALE)  # the two sides
    _outline(canvas, (81, 62), (70, 62, 67, 48, 78, 42), fill=_PALE)


def _open_wide(canvas: Any) -> None:
    _mouth(canvas)
    _arrow(canvas, 60, 36, 60, 20)


def _rub_throat(canvas: Any) -> None:
    _mouth(canvas)
    canvas.saveState()
    canvas.translate(98, 0)
    canvas.rotate(50)
    _swab(canvas, 0, 0, 88)
    canvas.restoreState()
    _pen(canvas, _ACCENT, 2.6)
    _outline(canvas, (25, 54), (34, 44, 40, 48, 50, 48), (60, 48, 66, 44, 72, 52))
    _arrow(canvas, 68, 48, 77, 57)
    _arrow(canvas, 31, 48, 22, 57)


PICTURES: Final[dict[Specimen, tuple[Draw, Draw, Draw]]] = {
    Specimen.CAPILLARY_BLOOD: (_warm_hands, _prick, _fill_tube),
    Specimen.VULVOVAGINAL_SWAB: (_hold_swab, _swab_in_vagina, _swab_to_tube),
    Specimen.FIRST_CATCH_URINE: (_wait_an_hour, _catch, _between_lines),
    Specimen.RECTAL_SWAB: (_hold_swab, _swab_in_bottom, _swab_to_tube),
    Specimen.PHARYNGEAL_SWAB: (_open_wide, _rub_throat, _swab_to_tube),
}
"""Three pictures for each sample, in the order of the hands."""
