"""Compares what the product came to with the demo's own sealed ledger. Knows the product's words only from outside.

The product's reconciliation looks at the product alone and could agree with its own mistakes. This one
looks at what was ordered, what the laboratory wrote, and what the SMS provider took (ruling 20).
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.demo.borough import Resident
from app.demo.laboratory import Findings, Form

ALL_CLEAR: Final = re.compile(
    r"All clear|There is nothing you need to do now|Popeth yn glir|Nid oes angen i chi wneud dim"
)
FOUND: Final = re.compile(r"We found:|Canfuwyd|canfuwyd:")
FAILED: Final = re.compile(
    r"not a negative result|needs a step from you|nid yw hwn yn ganlyniad|Nid yw'n ganlyniad|cam gennych", re.IGNORECASE
)
CALL: Final = re.compile(r"would like to talk it through|hoffem (ei )?drafod|hoffem siarad", re.IGNORECASE)
BLOOD_WORDS: Final = re.compile(r"\bHIV\b|syphilis|siffilis|hepatitis", re.IGNORECASE)
NAMES_INFECTION: Final = re.compile(r"chlamydia|clamydia|gonorrhoea|gonorea", re.IGNORECASE)

OUTCOME: Final = {
    "Not detected": "negative",
    "Non-reactive": "negative",
    "DETECTED": "positive",
    "Reactive": "reactive",
    "Equivocal": "equivocal",
    "Inhibitory": "inhibitory",
    "Insufficient sample": "insufficient",
    "": "pending",
}

NO_RESULT_TEXT: Final = frozenset(
    {"comment", "unknown_word", "wrong_birth_date", "no_text_wanted", "late_return", "cancelled_late"}
)
"""Stories in which a person must act before anything about results may be said by text."""


@dataclass(slots=True)
class KitTruth:
    """One kit that reached the laboratory, and everything that was reported about it, last word last."""

    resident: Resident
    findings: list[Findings]


@dataclass(slots=True)
class Verdict:
    """Sentences about what is wrong; none means that product and world agree."""

    wrong: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def expect(self, what: str, holds: bool, sentence: str) -> None:  # noqa: FBT001
        """Counts one check, and keeps its sentence when it does not hold."""
        self.checked[what] += 1
        if not holds:
            self.wrong.append(sentence)


def judge(
    residents: Iterable[Resident],
    kits: Mapping[str, KitTruth],
    lines: Mapping[str, Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    counted: Mapping[str, int],
) -> Verdict:
    """`lines` is the product's word on each kit, `messages` the provider's ledger, `counted` rows the lab wrote."""
    verdict = Verdict()
    _orders(residents, verdict)
    by_number: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for message in messages:
        by_number[message["to"]].append(message)
    _no_text_twice(messages, verdict)
    for code, truth in kits.items():
        line = lines.get(code)
        verdict.expect("kits known", line is not None, f"{code}: the product does not know this kit")
        if line is not None:
            _kit(code, truth, line, by_number[_e164(truth.resident.order["mobile"])], verdict)
    written, read = counted["written"], counted["read"]
    verdict.expect(
        "rows", written == read, f"the laboratory wrote {written} rows in whole files, the product read {read}"
    )
    return verdict


def judge_requests(forms: Iterable[Form], asked: Sequence[tuple[str, frozenset[str]]], verdict: Verdict) -> None:
    """Every kit that was posted was asked of the laboratory, once, with the tubes that are in its box."""
    times = Counter(asked)
    for form in forms:
        code = form.kit.replace("-", "")
        tubes = frozenset(tube.number.replace("-", "") for tube in form.tubes)
        count = times.pop((code, tubes), 0)
        verdict.expect("laboratory asked once", count == 1, f"{code}: the laboratory was asked {count} times")
    verdict.expect("laboratory asked of nothing else", not times, f"the laboratory was asked of {len(times)} others")


def _orders(residents: Iterable[Resident], verdict: Verdict) -> None:
    for resident in residents:
        came_to = resident.answer.get("outcome", "unreadable")
        verdict.expect(
            "orders",
            came_to == resident.expected,
            f"order {resident.order['channel_ref']}: should be {resident.expected}, is {came_to}"
            f" {resident.answer.get('reasons', '')}",
        )


def _no_text_twice(messages: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    times = Counter((message["to"], message["body_sha256"]) for message in messages)
    for (_, body), count in times.items():
        verdict.expect("texts once", count == 1, f"text {body[:10]} was accepted {count} times")


def _kit(
    code: str, truth: KitTruth, line: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], verdict: Verdict
) -> None:
    story = truth.resident.story
    bodies = [str(message["body"]) for message in messages]
    clear, found, failed, call = (
        sum(1 for body in bodies if pattern.search(body)) for pattern in (ALL_CLEAR, FOUND, FAILED, CALL)
    )
    values = list(truth.findings[-1].values.items()) if truth.findings else []
    if story != "wrong_birth_date":
        _outcomes(code, truth, line, verdict)
    bad = [value for (_, _), value in values if value in {"DETECTED", "Reactive", "Equivocal"}]
    complete = bool(values) and not truth.findings[-1].waiting
    wholly_negative = complete and all(value in {"Not detected", "Non-reactive"} for _, value in values)
    unreachable = any(state in {"failed", "handed_over", "unsure"} for _, state in line["texts"])

    may_be_clear = (wholly_negative and story not in NO_RESULT_TEXT) or story == "corrected_after_text"
    verdict.expect(
        "all clear only when all is clear", clear == 0 or may_be_clear, f"{code} ({story}): got an all clear"
    )
    if may_be_clear and story not in NO_RESULT_TEXT:
        # A text that the provider put off may wait until the correction comes, and is then stopped unsent.
        stopped = story == "corrected_after_text" and ["all_clear", "cancelled"] in line["texts"]
        verdict.expect("all clears sent", clear == 1 or unreachable or stopped, f"{code} ({story}): {clear} all clears")
    if bad or story in {"corrected_after_text", "unknown_word", "wrong_birth_date", "comment", "failed_blood"}:
        verdict.expect("a person has it", bool(line["case"]), f"{code} ({story}): nobody has this kit's case")
    if any(value == "Reactive" for _, value in values):
        named = any(BLOOD_WORDS.search(body) for body in bodies)
        verdict.expect("reactive never texted", not named, f"{code} ({story}): a text names a blood test")
        verdict.expect("reactive is called", call == 1 or unreachable, f"{code} ({story}): {call} neutral texts")
        verdict.expect("reactive has no result text", clear + found + failed == 0, f"{code} ({story}): a result text")
    if found:
        positive = any(value == "DETECTED" for _, value in values)
        verdict.expect("found is true", positive, f"{code} ({story}): told of a finding that is not there")
    if truth.resident.order["wording"] == "discreet":
        open_words = any(NAMES_INFECTION.search(body) or BLOOD_WORDS.search(body) for body in bodies)
        verdict.expect(
            "discreet stays discreet", not open_words, f"{code}: a discreet person's text names an infection"
        )
    if story == "corrected_after_text" and truth.findings:
        verdict.expect("correction goes to a person", line["case"] == "correction", f"{code}: case {line['case']!r}")
        told = found + call if clear else found
        verdict.expect("correction is not texted", told == 0, f"{code}: a text followed the correction")
    if story == "no_text_wanted":
        verdict.expect("no consent, no text", not bodies, f"{code}: a text without consent")


def _outcomes(code: str, truth: KitTruth, line: Mapping[str, Any], verdict: Verdict) -> None:
    """What the product holds now is exactly what the laboratory last said, test by test."""
    if not truth.findings:
        return
    last = truth.findings[-1]
    said: Counter[str] = Counter()
    for asked, value in last.values.items():
        if asked in last.waiting:
            said["pending"] += 1
        elif value in OUTCOME:
            said[OUTCOME[value]] += 1
    held = Counter(line["outcomes"].values())
    verdict.expect(
        "results as reported", held == said, f"{code} ({truth.resident.story}): lab {dict(said)}, product {dict(held)}"
    )
    blood = [outcome for target, outcome in line["outcomes"].items() if target.endswith("/blood")]
    verdict.expect("blood is never positive", "positive" not in blood, f"{code}: a blood screen is called positive")


def _e164(mobile: str) -> str:
    return "+44" + mobile.replace(" ", "")[1:]


def seal(entries: Iterable[str]) -> str:
    """One hash over the ledger, printed before the product is asked for its own account."""
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(entry.encode() + b"\n")
    return whole.hexdigest()
