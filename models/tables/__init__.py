"""What we remember. Importing any table imports all of them, so that every foreign key finds its target."""

from models.tables import (
    audit,
    clinic,
    collection,
    inbox,
    kit,
    lab_message,
    lab_notice,
    lab_request,
    order,
    parcel,
    person,
    postage,
    release,
    result,
    service,
    text,
)

__all__ = [
    "audit",
    "clinic",
    "collection",
    "inbox",
    "kit",
    "lab_message",
    "lab_notice",
    "lab_request",
    "order",
    "parcel",
    "person",
    "postage",
    "release",
    "result",
    "service",
    "text",
]
