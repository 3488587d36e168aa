"""The quick barcode writer against pystrich, whose symbols it claims to draw."""

import re
from random import Random

import pytest
from pystrich.code128 import Code128Encoder
from pystrich.datamatrix import DataMatrixData, DataMatrixEncoder

from integrations.labels.barcodes import DATA_MATRIX_SIDE, code_128_modules, code_128_path, data_matrix
from models.rules.kit import ALPHABET, new_kit_code

LETTERS = [character for character in ALPHABET if character.isalpha()]


def pystrich_data_matrix(text: str) -> int:
    encoder = DataMatrixEncoder(DataMatrixData(text, encoding="ascii"), quiet_zone=0, force_byte_mode=True)
    rows = encoder.init_renderer().matrix
    assert len(rows) == DATA_MATRIX_SIDE
    return int("".join(str(module or 0) for row in rows for module in row), 2)


@pytest.mark.parametrize("length", [9, 10, 11, 12])
def test_a_data_matrix_is_module_for_module_the_one_that_pystrich_draws(length):
    random = Random(length)
    texts = ["".join(random.choice(LETTERS) for _ in range(length)) for _ in range(40)]  # no digit pairs to pack

    assert [data_matrix(text) for text in texts] == [pystrich_data_matrix(text) for text in texts]


def test_every_kit_code_fills_the_same_sixteen_modules_whatever_its_digits():
    assert data_matrix("2345678923") >> 240 == data_matrix("XYXYXYXYXY") >> 240 == 0b1010101010101010


@pytest.mark.parametrize("text", ["A" * 13, "KITŴ"])
def test_what_a_data_matrix_of_this_size_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match="at most 12 ASCII"):
        data_matrix(text)


def test_a_code_128_has_the_very_bars_that_pystrich_draws():
    random = Random(128)
    for text in (new_kit_code(lambda _: random.choice(LETTERS)) for _ in range(40)):
        modules = ["0"] * code_128_modules(text)
        for start, width in re.findall(r"(\d+) 0 (\d+) 1 re", code_128_path(text)):
            modules[int(start) : int(start) + int(width)] = "1" * int(width)

        assert "".join(modules) == Code128Encoder(text).bars.strip("0")
