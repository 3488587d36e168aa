"""The main job for the fictional borough of Larkfield: a morning's orders, followed for two months in minutes.

Everything goes the way it goes in production: orders over HTTP and from a spreadsheet, Prefect
deployments, print batches in S3, a packer's scans, a courier, lab files, texts over HTTP. Only the
clock is moved (ruling 12). A sealed ledger of what was ordered, reported and accepted is compared with
the product at the end by `judge`, which shares nothing with it.
"""

import argparse
import hashlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.demo import judge, laboratory
from app.demo.borough import TWICE_EVERY, Resident, as_csv, people
from app.demo.laboratory import Findings, Form
from app.demo.world import World, memory_mb

LONDON: Final = ZoneInfo("Europe/London")
OUT: Final = Path("var/demo")
WEEKEND: Final = frozenset({5, 6})
"""Saturday and Sunday, as `date.weekday` counts."""
FEWEST_ORDERS: Final = 80
MOST_ORDERS: Final = 700
TEXTS_BEFORE_RESULTS: Final = 2
"""Order received and kit posted: a kit with more was told something."""

FLOWS: Final = (
    "take-orders",
    "pack-kits",
    "request-tests",
    "track-returns",
    "ingest-results",
    "notify-residents",
    "follow-up-positives",
)
TRIES_TO_KILL: Final = 8

SETTLE_EVERY_SECONDS: Final = 2.0
IN_THE_AIR: Final = re.compile(r"[│|] (owed|sending|unsure) +[│|]")
"""A row of the report's table of texts that shows some that are neither with the provider nor with a person."""

MISCHIEF: Final = 0.03
"""Share of the SMS provider's answers that go wrong; each that never comes costs ten seconds."""


@dataclass(slots=True)
class Demo:
    """One run: the world, the people in it, and what has happened so far."""

    world: World
    residents: list[Resident]
    start: datetime
    chance: random.Random
    forms: list[Form] = field(default_factory=list)
    truths: dict[str, judge.KitTruth] = field(default_factory=dict)
    ledger: list[str] = field(default_factory=list)
    tracking: dict[str, str] = field(default_factory=dict)
    rows_written: int = 0
    silenced: dict[str, int] = field(default_factory=dict)
    """Who said STOP, with how many texts had been accepted for them by then."""
    timings: list[tuple[str, float]] = field(default_factory=list)
    most_memory_mb: float = 0.0

    @contextmanager
    def stage(self, says: str) -> Iterator[None]:
        """Prints one line a stage, with how long it took and the memory of all processes together."""
        print(f"  {says} ...", end="", flush=True)
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.timings.append((says, took))
        self.most_memory_mb = max(self.most_memory_mb, memory_mb(self.world.pid))
        print(f" {took:.1f} s", flush=True)

    def note(self, kind: str, **what: Any) -> None:
        """Adds to the sealed ledger."""
        self.ledger.append(json.dumps({"kind": kind, **what}, default=str, sort_keys=True))

    def at(self, days: int, hour: int = 10, minute: int = 0) -> datetime:
        """So many days after the start, put forward to Monday where it falls on a weekend."""
        day = self.start.astimezone(LONDON).date() + timedelta(days=days)
        while day.weekday() in WEEKEND:
            day += timedelta(days=1)
        return datetime(day.year, day.month, day.day, hour, minute, tzinfo=LONDON).astimezone(UTC)

    def go_to(self, when: datetime) -> None:
        """Moves service time. Refused while a text is being sent, so it is asked again."""
        for _ in range(60):
            if self.world.move_clock(when):
                return
            if self.world.reaper is not None:  # what a killed sender held is settled by the next one
                self.world.run("notify-residents")
            time.sleep(1)
        raise RuntimeError("the clock could not be moved")


def main() -> None:
    """Runs the demo; exit code 0 only if the product reconciles and the judge agrees."""
    arguments = argparse.ArgumentParser(prog="python -m app.demo", description=__doc__.split("\n")[0])
    arguments.add_argument("--orders", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument(
        "--kills", type=int, default=0, help="SIGKILL the first so many runs of every flow, at random moments"
    )
    chosen = arguments.parse_args()
    if not FEWEST_ORDERS <= chosen.orders <= MOST_ORDERS:
        arguments.error(
            f"--orders must be from {FEWEST_ORDERS} (one of each story) to {MOST_ORDERS} (invented numbers)"
        )
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # so that the services end with us
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    folder = Path(tempfile.mkdtemp(prefix="kitpost-demo-"))
    folder.chmod(0o711)
    try:
        print(
            "Larkfield, a fictional borough. Starting PostgreSQL, S3, SQS, SMS, courier, sign-in, Prefect and the web:"
        )
        with World(folder, seed=chosen.seed, faults=MISCHIEF) as world:
            print(f"  up in {time.monotonic() - began:.1f} s")
            deaths = world.kill(chosen.kills, chance=random.Random(chosen.seed)) if chosen.kills else nullcontext()
            with deaths:
                even = run(world, count=chosen.orders, seed=chosen.seed, began=began)
            shutil.copytree(folder / "logs", OUT / "logs", dirs_exist_ok=True)
    except BaseException:
        shutil.copytree(folder / "logs", OUT / "logs", dirs_exist_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if even else 1)


def run(world: World, *, count: int, seed: int, began: float) -> bool:
    """The two months. True when everything is accounted for and the judge agrees."""
    start = _next_working_morning(datetime.now(UTC))  # noqa: TID251 - the demo begins tomorrow at the latest
    demo = Demo(world, people(count, now=start, seed=seed), start, random.Random(seed))
    demo.go_to(start)
    with demo.stage(f"{count} orders decided: web and spreadsheet, some twice, some unreadable"):
        _order(demo)
    with demo.stage("kit packs drawn, every barcode read back"):
        world.run("pack-kits")
        while world.reaper is not None and world.kitpost("kit", "list", "--state", "to_pack"):
            time.sleep(SETTLE_EVERY_SECONDS)
            world.run("pack-kits")
        _read_packs(demo)
    with demo.stage("order texts, and the packing bench: scan, pair, dispatch"), ThreadPoolExecutor(1) as beside:
        sent = beside.submit(world.run, "notify-residents")
        _scan(demo)
        sent.result()
    with demo.stage("two residents text back: STOP, and a question; dispatch texts, requests to the laboratory"):
        silenced = _text_back(demo)
        world.run("notify-residents", "request-tests")
        demo.silenced[silenced] = _texts_to(demo)[silenced]
    returned = [form for form in demo.forms if _resident_of(demo, form).returns]
    late = [form for form in returned if _resident_of(demo, form).story == "late_return"]
    # What needs a second report comes in the first wave.
    on_time = sorted((form for form in returned if form not in late), key=lambda form: not _has_sequel(demo, form))
    most = len(on_time) * 3 // 5
    _days(demo, waves=(on_time[:most], on_time[most:], late))
    return _finish(demo, began=began)


def _next_working_morning(now: datetime) -> datetime:
    day = now.astimezone(LONDON).date() + timedelta(days=1)
    while day.weekday() not in {0, 1}:
        day += timedelta(days=1)
    return datetime(day.year, day.month, day.day, 9, 30, tzinfo=LONDON).astimezone(UTC)


# ── Ordering and packing ─────────────────────────────────────────────────────────────────────


def _order(demo: Demo) -> None:
    online = [resident for resident in demo.residents if not resident.by_file]
    on_paper = [resident for resident in demo.residents if resident.by_file]
    with demo.world.order_client() as client:

        def submit(resident: Resident) -> None:
            for _ in range(2 if resident.twice else 1):
                answer = client.post("/api/orders", json=resident.order)
                resident.answer = answer.json() if answer.is_success else {"outcome": "unreadable"}

        # The last few depend on each other's order, so they go one after another.
        with ThreadPoolExecutor(5) as pool:
            clinic = pool.submit(_import, demo, on_paper)
            list(pool.map(submit, online[:-3]))
        for resident in online[-3:]:
            submit(resident)
        clinic.result()
    for resident in demo.residents:
        demo.note("ordered", ref=resident.order["channel_ref"], expected=resident.expected, story=resident.story)


def _import(demo: Demo, on_paper: list[Resident]) -> None:
    """The clinic's spreadsheet, while others order on the web; its orders are decided by the next run."""
    sheet = OUT / "clinic-orders.csv"
    sheet.write_text(as_csv(on_paper), encoding="utf-8", newline="")
    printed = demo.world.kitpost(
        "orders", "import", str(sheet), "--service", "larkfield", "--channel", "clinic", may_fail=True
    )
    (OUT / "clinic-orders-answer.txt").write_text(printed, encoding="utf-8")
    demo.world.run("take-orders")


def _read_packs(demo: Demo) -> None:
    (OUT / "packs").mkdir()
    for key in demo.world.files("batches/"):
        body = demo.world.read(key)
        (OUT / "packs" / key.removeprefix("batches/").replace("/", "-")).write_bytes(body)
        if key.endswith(".pdf"):
            demo.forms += laboratory.read_packs(body)
    packed = {(form.name, form.born_on.isoformat()) for form in demo.forms}
    for resident in demo.residents:
        if resident.by_file and resident.expected != "unreadable":
            # The spreadsheet's answers are not sent back: what came out of it is what was packed.
            accepted = resident.person in packed
            resident.answer = {"outcome": "accepted" if accepted else resident.expected}


def _resident_of(demo: Demo, form: Form) -> Resident:
    return next(r for r in demo.residents if r.person == (form.name, form.born_on.isoformat()))


def _has_sequel(demo: Demo, form: Form) -> bool:
    return _resident_of(demo, form).story in {"partial_then_final", "chlamydia_so_far", "corrected_after_text"}


def _scan(demo: Demo) -> None:
    """Two packers at two benches."""
    half = len(demo.forms) // 2
    with ThreadPoolExecutor(2) as benches:
        printed = benches.map(partial(_scan_at, demo), ("demo-packer", "demo-packer-2"), ((0, half), (half, None)))
    (OUT / "packing-bench.txt").write_text("".join(printed), encoding="utf-8")
    for form in demo.forms:
        resident = _resident_of(demo, form)
        if resident.returns:
            demo.truths[form.kit.replace("-", "")] = judge.KitTruth(resident, [])


def _scan_at(demo: Demo, packer: str, share: tuple[int, int | None]) -> str:
    typed = []
    for number, form in list(enumerate(demo.forms))[slice(*share)]:
        tracking = demo.tracking[form.kit] = _s10(number)
        tubes = [tube.number for tube in form.tubes]
        if number == 1:
            # Somebody else's tube: the bench must say no, and the kit is scanned again from its form.
            typed += [form.kit, demo.forms[0].tubes[0].number]
        twice = tubes[-1:] if number % TWICE_EVERY == 0 else []  # a beep that nobody heard
        typed += [form.kit, *tubes, *twice, tracking, form.parcel]
    return demo.world.kitpost("scan", "--packer", packer, typed="\n".join([*typed, ""]), may_fail=True)


def _s10(number: int) -> str:
    """A tracking number as the post office numbers parcels (UPU S10)."""
    digits = f"{10_000_000 + number:08d}"
    check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, (8, 6, 4, 2, 3, 5, 9, 7), strict=True)) % 11
    return f"TX{digits}{ {10: 0, 11: 5}.get(check, check) }GB".replace(" ", "")


# ── Two months ───────────────────────────────────────────────────────────────────────────────


def _days(demo: Demo, *, waves: tuple[Sequence[Form], Sequence[Form], Sequence[Form]]) -> None:
    first, second, late = waves
    world = demo.world
    demo.go_to(demo.at(6, 11))
    with demo.stage(f"day 6: {len(first)} kits posted back, the laboratory's first results"):
        _post_back(demo, first, days=4)
        said = _report(demo, first, "A", days=6)
        world.run("track-returns")
        world.wait_for_lab_files()
        world.run("notify-residents", "follow-up-positives")
    demo.go_to(demo.at(10, 11))
    with demo.stage(f"day 10: {len(second)} more, a file twice, a cut file, finals, corrections; first reminders"):
        _post_back(demo, second, days=7)
        _report_again(demo, said)
        _report(demo, second, "B", days=10, as_table=True)
        world.run("track-returns")
        world.wait_for_lab_files()
        world.run("notify-residents", "follow-up-positives")
    for day in (20, 35):
        demo.go_to(demo.at(day, 10, 30))
        with demo.stage(f"day {day}: reminders"):
            world.run("notify-residents")
    demo.go_to(demo.at(65, 10, 30))
    with demo.stage(f"day 65: kits that never came back lapse; {len(late)} come after all"):
        world.run("track-returns")
        _post_back(demo, late, days=62)
        _report(demo, late, "C", days=65, one_by_one=True)
        _read_all(demo)
        world.run("notify-residents", "follow-up-positives")
    if world.reaper is not None:
        with demo.stage("flows that were quicker than their killer run again"):
            for flow in FLOWS:
                for _ in range(TRIES_TO_KILL):
                    if world.reaper.spares(flow):
                        world.run(flow)
    with demo.stage("what is still unsure is looked up and settled"):
        _settle(demo)


def _texts_to(demo: Demo) -> Counter[str]:
    return Counter(message["to"] for message in demo.world.provider_ledger())


def _text_back(demo: Demo) -> str:
    """One says STOP, one asks something: both have a kit, and neither sends it back. Returns whose STOP it was."""
    texted = _texts_to(demo)
    numbers = [
        f"+447700900{resident.number:03d}"
        for resident in demo.residents
        if resident.expected == "accepted" and resident.story == "negative" and not resident.returns
    ]
    silenced, asking = [number for number in numbers if texted[number]][:2]
    demo.world.text_back(silenced, "STOP")
    demo.world.text_back(asking, "Can somebody ring me about this please?")
    return silenced


def _settle(demo: Demo) -> None:
    """Until no text hangs in the air: each is looked up, or tried again, after a grace time on machine time.

    Days pass in a second here, so a text that the provider put off for a minute would else seem to be days late.
    """
    _run_until(demo, "notify-residents", lambda: not IN_THE_AIR.search(demo.world.kitpost("report")))


def _run_until(demo: Demo, flow: str, holds: Callable[[], bool]) -> None:
    """Runs a flow again and again until something holds. The judge sees what never does."""
    for _ in range(40):
        demo.world.run(flow)
        if holds():
            return
        time.sleep(SETTLE_EVERY_SECONDS)


def _post_back(demo: Demo, forms: Sequence[Form], *, days: int) -> None:
    journeys = []
    for form in forms:
        posted = demo.at(days, 8) - timedelta(days=demo.chance.randint(0, 2), minutes=demo.chance.randint(0, 300))
        steps = [("EVDAC", posted), ("EVIMC", posted + timedelta(hours=9)), ("EVKSP", posted + timedelta(hours=26))]
        events = [(code, at.isoformat(timespec="seconds")) for code, at in steps]
        journeys.append({"number": demo.tracking[form.kit], "events": events})
    demo.world.tell_courier(journeys)


def _collected(demo: Demo, days: int) -> date:
    return (demo.at(days) - timedelta(days=3)).astimezone(LONDON).date()


def _report(
    demo: Demo, forms: Sequence[Form], wave: str, *, days: int, as_table: bool = False, one_by_one: bool = False
) -> list[Findings]:
    """One wave's results, in several files, or message by message over MLLP. Returns what was said."""
    found = [laboratory.examine(form, _resident_of(demo, form).story) for form in forms]
    now, collected = demo.at(days, 6), _collected(demo, days)
    accession = {form.kit: f"26V{wave}{number:04d}" for number, form in enumerate(forms)}
    for form, each in zip(forms, found, strict=True):
        demo.truths[form.kit.replace("-", "")].findings.append(each)
    tabled = [each for number, each in enumerate(found) if as_table and number % 2 and not each.waiting]
    spoken = [each for each in found if each not in tabled]
    for number, part in enumerate(_in_parts(spoken, 60)):
        control = f"NL{now:%Y%m%d}{wave}{number}"
        body = laboratory.as_hl7(part, control=control, now=now, collected=collected, accession=accession)
        if one_by_one:
            _say(demo, body, rows=_rows(part))
        else:
            _leave(demo, f"{control}.hl7", body, rows=_rows(part))
    if tabled:
        body = laboratory.as_csv(tabled, now=now, collected=collected, accession=accession)
        name = f"NL{now:%Y%m%d}{wave}.csv"
        _leave(demo, name, body, rows=_rows(tabled), control=True)
    return found


def _report_again(demo: Demo, said: Sequence[Findings]) -> None:
    """Days later: the rest of the partial reports, a correction, the same file twice, and a file cut short."""
    now, collected = demo.at(10, 7), _collected(demo, 6)
    accession = {each.form.kit: f"26VA{number:04d}" for number, each in enumerate(said)}
    finals, corrections = [], []
    for each in said:
        story = _resident_of(demo, each.form).story
        if story in {"partial_then_final", "chlamydia_so_far"}:
            finals.append(Findings(each.form, dict(each.values)))
        if story == "corrected_after_text" and each.form.swab_tube is not None:
            changed = Findings(each.form, dict(each.values))
            asked = (each.form.swab_tube.number, "Chlamydia")
            changed.values[asked] = "DETECTED"
            changed.corrected.add(asked)
            corrections.append(changed)
    for again in (*finals, *corrections):
        demo.truths[again.form.kit.replace("-", "")].findings.append(again)
    for name, part in (("F", finals), ("K", corrections)):
        if part:
            control = f"NL{now:%Y%m%d}{name}"
            body = laboratory.as_hl7(part, control=control, now=now, collected=collected, accession=accession)
            _leave(demo, f"{control}.hl7", body, rows=_rows(part))
            if name == "F":
                _leave(demo, f"{control}-again.hl7", body, rows=0)
                _leave(
                    demo,
                    f"NL{now:%Y%m%d}X-cut.hl7",
                    body.replace(control.encode(), b"NLCUT")[: len(body) * 2 // 3],
                    rows=0,
                )


def _read_all(demo: Demo) -> None:
    """Until what was said is read: messages gather for a moment before they go to the readers in one file."""
    _run_until(demo, "ingest-results", lambda: _balance(demo)["figures"]["lab rows read"] >= demo.rows_written)


def _balance(demo: Demo) -> dict[str, Any]:
    """The product's own account of itself."""
    told: dict[str, Any] = json.loads(demo.world.kitpost("reconcile", "--json", may_fail=True))
    return told


def _say(demo: Demo, batch: bytes, *, rows: int) -> None:
    """Each message of a batch, without its envelope."""
    for message in re.findall(rb"MSH\|[^\r]*\r(?:(?!MSH\||BTS\|)[^\r]*\r)*", batch):
        if demo.world.send(message) != "AA":
            raise RuntimeError("an HL7 message was not taken")
        demo.note("said", sha256=hashlib.sha256(message).hexdigest())
    demo.rows_written += rows


def _leave(demo: Demo, name: str, body: bytes, *, rows: int, control: bool = False) -> None:
    digest = hashlib.sha256(body).hexdigest()
    demo.world.put(f"NORTHLAB/incoming/{name}", body)
    if control:
        lines = body.count(b"\r\n") - 1
        demo.world.put(f"NORTHLAB/incoming/{name}.ctl", f"file={name}\nrows={lines}\nsha256={digest}\n".encode())
    demo.rows_written += rows
    demo.note("reported", file=name, rows=rows, sha256=digest)


def _rows(part: Sequence[Findings]) -> int:
    return sum(len(each.values) for each in part)


def _in_parts(found: Sequence[Findings], size: int) -> Iterator[Sequence[Findings]]:
    for start in range(0, len(found), size):
        yield found[start : start + size]


# ── The end ──────────────────────────────────────────────────────────────────────────────────


def _finish(demo: Demo, *, began: float) -> bool:
    world = demo.world
    messages = world.provider_ledger()
    for message in messages:
        demo.note("accepted", sid=message["sid"], body=message["body_sha256"], to=_hash(message["to"]))
    (OUT / "ledger.jsonl").write_text("\n".join(demo.ledger) + "\n", encoding="utf-8")
    print(f"\nThe demo's own ledger is sealed: {judge.seal(demo.ledger)[:16]} ({len(demo.ledger)} entries)\n")
    kits = OUT / "kits.jsonl"
    with ThreadPoolExecutor(1) as beside:
        reported = beside.submit(world.kitpost, "report", "--kits", str(kits.absolute()))
        balance = _balance(demo)
        report = reported.result()
    print(report)
    lines = {line["code"]: line for line in map(json.loads, kits.read_text(encoding="utf-8").splitlines())}
    counted = {"written": demo.rows_written, "read": balance["figures"]["lab rows read"]}
    verdict = judge.judge(demo.residents, demo.truths, lines, messages, counted)
    asked = [each for key in world.files("NORTHLAB/outgoing/") for each in laboratory.read_requests(world.read(key))]
    judge.judge_requests(demo.forms, asked, verdict)
    for number, times in demo.silenced.items():
        after = sum(message["to"] == number for message in messages) - times
        verdict.expect("a STOP is heard", after == 0, f"{after} texts to somebody after their STOP")
    _show_timelines(demo, lines)
    print("Reconciliation (the product alone)")
    for name, figure in balance["figures"].items():
        print(f"  {figure:>7}  {name}")
    for difference in balance["differences"]:
        print(f"  DIFFERENCE  {difference['says']}: {difference['count']} ({' '.join(difference['ids'][:5])})")
    print("\nThe judge (the demo's own ledger against the product)")
    for name, times in verdict.checked.items():
        print(f"  {times:>7}  {name}")
    for sentence in verdict.wrong[:40]:
        print(f"  WRONG  {sentence}")
    if world.reaper is not None:
        print("\nKilled in the midst of their work")
        for name, times in sorted(world.reaper.killed.items()):
            print(f"  {times:>7}  {name}")
    took = time.monotonic() - began
    even = not balance["differences"] and not verdict.wrong
    print(f"\n{'Everything is accounted for.' if even else 'NOT everything is accounted for.'}")
    print(f"{len(demo.residents)} orders, {len(demo.forms)} kits, {len(messages)} texts in {took:.0f} s;"
          f" all processes together {demo.most_memory_mb:.0f} MB at most (PSS).")  # fmt: skip
    print(f"Look at: {OUT}/packs (PDFs, contact sheets, manifests), {OUT}/ledger.jsonl, {OUT}/kits.jsonl, {OUT}/logs.")
    print("To look around in the worklist and Prefect's pages: make up")
    (OUT / "report.txt").write_text(report, encoding="utf-8")
    return even


def _show_timelines(demo: Demo, lines: dict[str, Any]) -> None:
    wanted: dict[str, Callable[[Any], bool]] = {
        "all clear": lambda line: line["decision"] == "all_clear",
        "positive": lambda line: line["decision"] == "swab_positive",
        "corrected": lambda line: line["case"] == "correction" and len(line["texts"]) > TEXTS_BEFORE_RESULTS,
    }
    found = {what: next((code for code, line in lines.items() if fits(line)), None) for what, fits in wanted.items()}
    codes = {what: code for what, code in found.items() if code is not None}
    with ThreadPoolExecutor(len(wanted)) as asked:
        for what, shown in zip(
            codes, asked.map(partial(demo.world.kitpost, "kit", "show"), codes.values()), strict=True
        ):
            print(f"One kit that was {what}:\n{shown}")


def _hash(number: str) -> str:
    return hashlib.sha256(number.encode()).hexdigest()[:16]
