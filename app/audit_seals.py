"""Seals of the audit, kept outside the database too, and the proof that it is whole (law 10)."""

import json
from typing import Final

from app.database import Begin
from integrations.ports import FileStore
from models.actions.audit_seal import Block, Verdict, newest_seal, seal_next, verify

FOLDER: Final = "audit/seals/"
"""In the store: one small file a block, by number and digest, never written over."""


def seal_waiting(begin: Begin, outside: FileStore) -> int:
    """Seals what waits and says how many entries.

    The newest seal is kept outside once more at first: a run killed between the two left it out.
    """
    sealed = 0
    with begin() as session:
        newest = newest_seal(session)
    if newest is not None:
        _keep(outside, newest)
    with begin() as session:
        block = seal_next(session)
    while block is not None:
        _keep(outside, block)
        sealed += block.entries
        with begin() as session:
            block = seal_next(session)
    return sealed


def verify_whole(begin: Begin, outside: FileStore) -> Verdict:
    """Reads the whole audit and compares it with its seals, here and outside."""
    kept = [json.loads(outside.read(each.key)) for each in outside.list(FOLDER)]
    with begin() as session:
        return verify(session, [(int(each["number"]), str(each["digest"])) for each in kept])


def _keep(outside: FileStore, block: Block) -> None:
    body = json.dumps({"number": block.number, "digest": block.digest, "entries": block.entries}).encode()
    outside.put(f"{FOLDER}{block.number:010}-{block.digest}.json", body, "application/json")
