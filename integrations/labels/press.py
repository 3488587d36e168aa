"""The label printer as the port wants it: draws packs, and reads them back."""

from collections.abc import Sequence

from integrations.labels.draw import draw_packs
from integrations.labels.pack import KitPack
from integrations.labels.verify import contact_sheet, verify
from models.rules.service import Paper


class LabelPress:
    """Kit packs as PDF."""

    def draw(self, packs: Sequence[KitPack], paper: Paper) -> bytes:
        """One PDF; the same packs give the same bytes."""
        return draw_packs(packs, paper)

    def faults(self, pdf: bytes, packs: Sequence[KitPack], paper: Paper) -> Sequence[str]:
        """What on the paper is not what the packs say, one line each."""
        return [
            " ".join(
                part
                for part in (f"page {found.page}", found.kind or "", found.kit_code, found.problem, found.detail)
                if part
            )
            for found in verify(pdf, packs, paper=paper)
        ]

    def contact_sheet(self, pdf: bytes) -> bytes:
        """The first pages side by side as a PNG."""
        return contact_sheet(pdf)
