"""All artwork of a service for invented kits: what somebody looks at before the first real one is printed."""

from collections.abc import Mapping
from datetime import date
from random import Random

from integrations.labels.draw import draw_packs
from integrations.labels.leaflet import draw_leaflet
from integrations.labels.pack import KitPack, Tube
from integrations.labels.verify import contact_sheet, verify
from models.rules.errors import Code, ServiceError
from models.rules.kit import new_kit_code, new_parcel_code
from models.rules.service import Service
from models.rules.vocabulary import Language, Specimen, Test


def preview(service: Service) -> Mapping[str, tuple[bytes, bytes]]:
    """Each document by name: its PDF, and a PNG of its pages.

    Raises ServiceError(BAD_INPUT) where a barcode or a word could not be read back from the labels.
    """
    packs = [_invented(service, language) for language in Language]
    drawn = {"labels": draw_packs(packs, service.packing.paper)}
    if verify(drawn["labels"], packs, paper=service.packing.paper):
        raise ServiceError(Code.BAD_INPUT, "The labels can't be read back: do not print with this council's file.")
    for language in Language:
        for large in (False, True):
            drawn[f"leaflet-{language}{'-large' if large else ''}"] = draw_leaflet(
                list(Specimen), language, phone=service.phone, phone_hours=service.phone_hours, large=large
            )
    return {name: (pdf, contact_sheet(pdf)) for name, pdf in drawn.items()}


def _invented(service: Service, language: Language) -> KitPack:
    """A kit of nobody, with every sample, addressed as long as addresses come."""
    chance = Random(language.value)  # noqa: S311 - codes of no kit, the same at each preview
    code, lab = new_kit_code(chance.choice), service.labs[0]
    swab, blood = (Test.CHLAMYDIA, Test.GONORRHOEA), (Test.SYPHILIS, Test.HIV, Test.HEPATITIS_B, Test.HEPATITIS_C)
    return KitPack(
        kit_code=code,
        parcel_code=new_parcel_code(chance.choice),
        return_tracking=None,
        recipient_name="Gwenllian Example-Featherstonehaugh",
        recipient_lines=("Flat 14, Specimen House", "1234 Very Long Example Street", "Exampletown", "EX1 1AA"),
        date_of_birth=date(1990, 3, 5),
        tubes=tuple(
            Tube(f"{code}{number}", specimen, blood if specimen is Specimen.CAPILLARY_BLOOD else swab)
            for number, specimen in enumerate(Specimen, 1)
        ),
        language=language,
        kit_expires_on=date(2030, 12, 31),
        lab_name=lab.name,
        lab_lines=lab.address,
        sender_lines=service.packing.return_address,
        responsible_person=service.packing.responsible_person,
        responsible_phone=service.packing.responsible_phone,
    )
