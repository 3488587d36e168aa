"""What taking orders needs, for the fictional council of Larkfield."""

from app.database import Begin
from integrations.orders import order_reader
from models.actions.order import Intake
from models.actions.service import keep_service_version
from models.rules.service import ServiceInForce
from tests.support import build


def larkfield_intake(begin: Begin) -> Intake:
    """Real rules, cipher and indexes; two postcodes: LS1 4AP is Larkfield's, SW1A 1AA is elsewhere."""
    with begin() as session:
        version = keep_service_version(session, "larkfield", {"made": "for tests"})
    return Intake(
        services={"larkfield": ServiceInForce(build.service(channels=("web", "clinic")), version)},
        cipher=build.cipher(),
        indexes=build.indexes(),
        read=order_reader(allow_test_numbers=True),
        authority_of={"LS1 4AP": "E08000035", "SW1A 1AA": "E09000033"}.get,
    )
