"""A packing run in a process of its own, to be killed: says every commit and every object that it stored."""

import sys
from pathlib import Path

from sqlalchemy import event

from app.database import begin_on, make_engine
from flows.pack_kits import pack_waiting_kits
from integrations.labels.press import LabelPress
from models.rules.service import PackPolicy, ServiceInForce
from tests.support import build


class FolderStore:
    """Objects that outlive the process. A put is whole or not at all, as the port wants it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key, body, content_type=""):  # noqa: ARG002 - the port has it
        path = self._folder / key.replace("/", "|")
        path.with_suffix(".part").write_bytes(body)
        path.with_suffix(".part").rename(path)
        say("stored")
        return "1"


class QuickPress(LabelPress):
    """Draws every page; reading them back is proved elsewhere and takes too long here."""

    def faults(self, pdf, packs, paper):  # noqa: ARG002 - the port has them
        return []

    def contact_sheet(self, pdf):  # noqa: ARG002 - the port has it
        return b""


def say(what):
    print(what, flush=True)


def main():
    url, folder = sys.argv[1:]
    engine = make_engine(url)
    event.listen(engine, "commit", lambda _connection: say("committing"))
    policy = PackPolicy(
        batch_size=1_000,
        return_address=("PO Box 100", "Larkfield", "LS1 1AA"),
        responsible_person="Duty Packer",
        responsible_phone="0113 496 0001",
    )
    pack_waiting_kits(
        begin_on(engine),
        FolderStore(Path(folder)),
        QuickPress(),
        {"larkfield": ServiceInForce(build.service(packing=policy), 1)},
        clock=lambda: build.NOW,
        cipher=build.cipher(),
        limit=10_000,
    )
    say("done")


if __name__ == "__main__":
    main()
