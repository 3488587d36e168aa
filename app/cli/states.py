"""`kitpost states`: the states of a kit and the moves between them, as docs/states.md shows them."""

from collections.abc import Mapping
from typing import Final

import typer

from models.rules.kit import AWAITING_RETURN, CLOSED_TO_TEXTS, KIT_MOVES, KitState

MEANING: Final[Mapping[KitState, str]] = {
    KitState.TO_PACK: "The order was accepted. The kit has its codes and waits for a print batch.",
    KitState.PRINTED: "Its labels and form were printed and proved. It lies at the packing bench.",
    KitState.QUARANTINED: "A packer set it aside, with a reason. It is packed on, packed anew or cancelled.",
    KitState.DISPATCHED: "The whole kit was scanned and given to the post. No return scan yet.",
    KitState.COMING_BACK: "The courier has scanned the return parcel.",
    KitState.AT_LAB: "The laboratory has it: one of its rows matched this kit. Results are missing or pending.",
    KitState.REPORTED: "Every requested test has an answer. A text or a clinic case follows from it.",
    KitState.CLOSED: "Nothing is left to send or to do.",
    KitState.CANCELLED: "Somebody cancelled it, with a reason.",
    KitState.LAPSED: "It was not posted back in time. The resident is told, and it may still come.",
    KitState.RETURNED_TO_SENDER: "The post brought it back to us undelivered.",
    KitState.REPLACED: "Another kit took its place.",
}
"""One line a state, for people who don't read the code."""


def states() -> None:
    """Print the states of a kit and the moves between them, in Markdown. docs/states.md is this."""
    typer.echo(states_page(), nl=False)


def states_page() -> str:
    """The whole page, drawn from the table of moves in models/rules/kit.py."""
    diagram = ["stateDiagram-v2", f"    [*] --> {KitState.TO_PACK}"]
    diagram += [f"    {start} --> {end}" for start in KitState for end in KitState if end in KIT_MOVES[start]]
    diagram += [f"    {state} --> [*]" for state in KitState if not KIT_MOVES[state]]
    rows = [f"| `{state}` | {MEANING[state]} | {_moves(state)} | {_told(state)} |" for state in KitState]
    return "\n".join(
        [
            "# The states of a kit",
            "",
            "<!-- Written by `kitpost states`; the table of moves is KIT_MOVES in models/rules/kit.py. -->",
            "",
            "A kit is in exactly one state. A move that is not drawn is refused, and a CHECK in the database refuses",
            "any other word. The state never decides whose result it is: a result for a kit that was ever dispatched",
            "is taken, whatever the state.",
            "",
            "```mermaid",
            *diagram,
            "```",
            "",
            "| state | what it means | may become | texts |",
            "|---|---|---|---|",
            *rows,
            "",
            "`kitpost kit list --state STATE` lists the kits of a state; `kitpost kit show CODE` tells one kit's way.",
            "",
        ]
    )


def _moves(state: KitState) -> str:
    return ", ".join(f"`{end}`" for end in KitState if end in KIT_MOVES[state]) or "nothing: it stays"


def _told(state: KitState) -> str:
    if state in CLOSED_TO_TEXTS:
        return "no result text: a person tells it"
    return "reminders" if state in AWAITING_RETURN else ""
