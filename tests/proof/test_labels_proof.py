"""Random packs by the hundred, every page rendered and every barcode decoded at the two resolutions in use.

Five thousand of each take two minutes on two quiet cores; LABEL_PACKS asks for another number.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

import pytest

from integrations.labels.draw import draw_packs
from integrations.labels.verify import Mismatch, verify
from tests.support.kit_packs import random_pack

PACKS = int(os.environ.get("LABEL_PACKS", "5000"))
BATCH = 100


def mismatches_of_a_batch(seed: int, dpi: int) -> list[Mismatch]:
    random = Random(seed)
    packs = [random_pack(random) for _ in range(BATCH)]
    return verify(draw_packs(packs), packs, dpi=dpi)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dpi", [203, 300])
def test_every_barcode_of_many_random_packs_decodes_to_what_was_meant(dpi):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        batches = pool.map(mismatches_of_a_batch, range(PACKS // BATCH), [dpi] * (PACKS // BATCH))

        assert [mismatch for batch in batches for mismatch in batch] == []
