"""What several commands ask alike: which service is meant, and who types."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.wiring import Wiring
    from models.rules.service import Service


def one_service(home: "Wiring", name: str) -> "Service":
    """The service of this name; without one, the only one there is. Raises ServiceError(BAD_INPUT)."""
    from models.rules.errors import Code, ServiceError

    known = sorted(home.services)
    if not name and len(known) == 1:
        name = known[0]
    if name not in home.services:
        raise ServiceError(Code.BAD_INPUT, f"Name one of these services with --service: {', '.join(known)}.")
    return home.services[name].service


def who() -> str:
    """Whoever is at the command, as the audit names them."""
    import getpass

    return f"cli:{getpass.getuser()}"
