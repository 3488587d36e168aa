"""Barcodes as PDF path operators: DataMatrix 16x16 and Code 128, one unit a module.

Both symbols are pystrich's; only its slow way there is replaced. A DataMatrix is linear over
GF(2): its picture is the exclusive or of what each character contributes alone, error correction
included. So pystrich draws one symbol per (place, character) once, and a code is twelve look-ups.
Proved symbol by symbol against pystrich, and read back by zxing-cpp, which shares no code with it.
"""

import re
from functools import cache
from typing import Final

from pystrich.code128.encoding import STOP, charset_b, encodings
from pystrich.datamatrix.placement import DataMatrixPlacer
from pystrich.datamatrix.renderer import DataMatrixRenderer
from pystrich.reedsolomon import GF256_0x12D, reed_solomon_encode

DATA_MATRIX_SIDE: Final = 16
"""Modules on a side, finder included, quiet zone not. Holds 12 characters: a kit or tube code fits."""

_DATA_CODEWORDS: Final = 12
_CHECK_CODEWORDS: Final = 12
_REGION_SIDE: Final = DATA_MATRIX_SIDE - 2
_FIRST_PAD: Final = 129
_LAST_PAD: Final = 254

_START_B: Final = 104
_LAST_BAR: Final = "11"


def data_matrix(text: str) -> int:
    """The symbol as 256 bits, the top left module first, 1 = dark. ValueError if it can't hold the text."""
    if len(text) > _DATA_CODEWORDS or not text.isascii():
        raise ValueError("a 16x16 DataMatrix holds at most 12 ASCII characters")
    picture = _frame()
    for place in range(_DATA_CODEWORDS):
        # one codeword a character: pairing digits would make the size depend on the code
        picture ^= _part(place, ord(text[place]) + 1 if place < len(text) else _pad(place, len(text)))
    return picture


def data_matrix_path(text: str) -> str:
    """The dark modules as one path, the bottom left corner at 0 0. One path: no seams between rectangles."""
    picture = data_matrix(text).to_bytes(DATA_MATRIX_SIDE * DATA_MATRIX_SIDE // 8)
    return "".join(_runs(place, byte) for place, byte in enumerate(picture)) + "f"


def code_128_modules(text: str) -> int:
    """How many modules wide the symbol is, quiet zones not counted."""
    return 11 * (len(text) + 2) + 13


def code_128_path(text: str) -> str:
    """The bars as one path, one unit high, the left end at 0. Code set B only. KeyError on a foreign character."""
    values = [charset_b[ord(character)] for character in text]
    check = (_START_B + sum(place * value for place, value in enumerate(values, 1))) % 103
    patterns = [*map(encodings.__getitem__, (_START_B, *values, check)), STOP + _LAST_BAR]
    return "".join(_bars(place, pattern) for place, pattern in enumerate(patterns)) + "f"


@cache
def _bars(place: int, pattern: str) -> str:
    """One Code 128 character in its place, as rectangles."""
    return "".join(f"{11 * place + start} 0 {width} 1 re " for start, width in _dark_runs(pattern))


def _dark_runs(modules: str) -> list[tuple[int, int]]:
    """(start, width) of each unbroken run of dark modules."""
    return [(run.start(), run.end() - run.start()) for run in re.finditer("1+", modules)]


@cache
def _runs(place: int, byte: int) -> str:
    """One byte of the picture (half a row) as rectangles; at most 32 x 256 of them exist."""
    row, half = divmod(place, 2)
    bottom = DATA_MATRIX_SIDE - 1 - row
    return "".join(f"{8 * half + start} {bottom} {width} 1 re " for start, width in _dark_runs(f"{byte:08b}"))


@cache
def _frame() -> int:
    """What every symbol shares: finder, clock track and the fixed corner."""
    return _drawn([0] * _DATA_CODEWORDS)


@cache
def _part(place: int, codeword: int) -> int:
    """What one codeword in one place adds to the frame, its share of the error correction included."""
    return _drawn([codeword if place == other else 0 for other in range(_DATA_CODEWORDS)]) ^ _frame()


def _pad(place: int, length: int) -> int:
    """Filler after the text: 129 first, then scrambled by place (ISO/IEC 16022, 253-state)."""
    if place == length:
        return _FIRST_PAD
    scrambled = _FIRST_PAD + 149 * (place + 1) % 253 + 1
    return scrambled if scrambled <= _LAST_PAD else scrambled - _LAST_PAD


def _drawn(codewords: list[int]) -> int:
    """The picture that pystrich makes of twelve data codewords."""
    check = reed_solomon_encode(codewords, GF256_0x12D, _CHECK_CODEWORDS, first_root=1)
    region: list[list[int | None]] = [[None] * _REGION_SIDE for _ in range(_REGION_SIDE)]
    DataMatrixPlacer().place(codewords + check, region)
    matrix = DataMatrixRenderer(region, (1, 1), quiet_zone=0).matrix  # adds the finder in place
    return int("".join(str(module or 0) for row in matrix for module in row), 2)
