"""Kit packs of obviously fake people, for drawing and reading back."""

from collections.abc import Mapping
from datetime import date
from random import Random
from typing import Any

from integrations.labels.pack import KitPack, Tube
from models.rules.kit import new_kit_code, new_parcel_code
from models.rules.vocabulary import Language, Specimen, Test

_NAMES = (
    "Testina Kit",
    "Siân Ŵyn Llŷr ap Gruffudd",
    "Żaneta Example-O'Sample",
    "Testina Maximiliana Featherstonehaugh-Cholmondeley van der Llanfairpwllgwyngyll",
)
_ADDRESSES = (
    ("12 Example Street", "Testerton", "LEEDS", "LS1 4AP"),
    ("Tŷ Gwyn", "Stryd y Bont", "CAERDYDD", "CF10 1AA"),
    (
        "Flat 1234, The Extraordinarily Long Building Name of Uncommon Length Residential Tower",
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
        "123456 Another Really Long Street Name That Goes On And On",
        "Upper Something-under-Lyme",
        "NORTHUMBERLANDSHIRE",
        "LS1 4AP",
        "UNITED KINGDOM",
    ),
)


def tubes_of(kit_code: str, specimens: tuple[Specimen, ...]) -> tuple[Tube, ...]:
    """One tube for each specimen, numbered from 1."""
    swab, blood = (Test.CHLAMYDIA, Test.GONORRHOEA), (Test.SYPHILIS, Test.HIV, Test.HEPATITIS_B, Test.HEPATITIS_C)
    return tuple(
        Tube(f"{kit_code}{number}", specimen, blood if specimen is Specimen.CAPILLARY_BLOOD else swab)
        for number, specimen in enumerate(specimens, 1)
    )


def kit_pack(seed: int = 0, **changes: Any) -> KitPack:
    """A pack with every specimen, codes from the seed, and whatever is changed."""
    random = Random(seed)
    code = new_kit_code(random.choice)
    fields: Mapping[str, Any] = {
        "kit_code": code,
        "parcel_code": new_parcel_code(random.choice),
        "return_tracking": f"AB{random.randrange(10**9):09}GB",
        "recipient_name": _NAMES[0],
        "recipient_lines": _ADDRESSES[0],
        "date_of_birth": date(1990, 3, 5),
        "tubes": tubes_of(code, tuple(Specimen)),
        "language": Language.ENGLISH,
        "kit_expires_on": date(2027, 3, 12),
        "lab_name": "Fictional Pathology Laboratory",
        "lab_lines": ("Specimen Reception", "1 Beaker Road", "EXAMPLETOWN", "EX1 1AB"),
        "sender_lines": ("PO Box 1234", "EXAMPLETOWN", "EX1 9ZZ"),
        "responsible_person": "Dr Robin Sample",
        "responsible_phone": "0113 496 0000",
    }
    return KitPack(**{**fields, **changes})


def random_pack(random: Random) -> KitPack:
    """Any pack that the product could ask for."""
    pack = kit_pack(random.getrandbits(64))
    specimens = tuple(specimen for specimen in Specimen if random.random() < 0.6) or (Specimen.CAPILLARY_BLOOD,)
    return kit_pack(
        kit_code=pack.kit_code,
        parcel_code=pack.parcel_code,
        return_tracking=random.choice((pack.return_tracking, None)),
        recipient_name=random.choice(_NAMES),
        recipient_lines=random.choice(_ADDRESSES),
        date_of_birth=date(1940 + random.randrange(69), 1 + random.randrange(12), 1 + random.randrange(28)),
        tubes=tubes_of(pack.kit_code, specimens),
        language=random.choice(tuple(Language)),
    )
