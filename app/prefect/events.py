"""Wakes another flow after a commit. A hint only: its schedule is the guarantee (ruling 13)."""

from typing import Final

from prefect.events import emit_event

LAB_FILE_LANDED: Final = "kitpost.lab-file.landed"
TEXT_OWED: Final = "kitpost.text.owed"


def tell(event: str) -> None:
    """Emits an event that says only that something happened: Prefect keeps it, so it carries nothing."""
    resource = event.rpartition(".")[0]
    emit_event(event=event, resource={"prefect.resource.id": f"{resource}.any"})
