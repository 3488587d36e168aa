"""Where everything stands, in counts: for the service manager and the end of a run. Reads only; nobody is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from models.tables.bulk import cursor

Rows = tuple[tuple[str, ...], ...]

_TABLES: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    (
        "Orders by outcome",
        ("outcome", "orders"),
        """SELECT d.outcome, count(*) FROM kit_order o JOIN order_decision d ON d.id = o.current_decision_id
           GROUP BY 1 ORDER BY 1""",
    ),
    (
        "Why orders were refused or held",
        ("reason", "outcome", "orders"),
        """SELECT reason, d.outcome, count(*)
           FROM kit_order o JOIN order_decision d ON d.id = o.current_decision_id, unnest(d.reasons) AS reason
           WHERE d.outcome <> 'accepted' GROUP BY 1, 2 ORDER BY 3 DESC, 1""",
    ),
    (
        "Kits by state",
        ("state", "kits"),
        "SELECT state, count(*) FROM kit GROUP BY 1 ORDER BY 2 DESC, 1",
    ),
    (
        "Print batches",
        ("state", "batches", "kits"),
        "SELECT state, count(*), sum(kits) FROM print_batch GROUP BY 1 ORDER BY 1",
    ),
    (
        "Lab files",
        ("lab", "state", "why held", "files", "rows"),
        """SELECT lab, state, coalesce(held_because, ''), count(*), sum(rows_read)
           FROM lab_file GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
    ),
    (
        "Results by outcome",
        ("outcome", "results now", "versions ever"),
        """SELECT v.outcome, (SELECT count(*) FROM result_series s WHERE s.outcome = v.outcome), count(*)
           FROM result_version v GROUP BY 1 ORDER BY 3 DESC, 1""",
    ),
    (
        "Quarantine by reason",
        ("reason", "rows", "open"),
        """SELECT reason, count(*), count(*) FILTER (WHERE resolved_at IS NULL)
           FROM quarantined_row GROUP BY 1 ORDER BY 2 DESC, 1""",
    ),
    (
        "Decisions about kits",
        ("decision", "made", "standing"),
        """SELECT d.kind, count(*), count(*) FILTER (WHERE k.current_decision_id = d.id)
           FROM release_decision d JOIN kit k ON k.id = d.kit_id GROUP BY 1 ORDER BY 2 DESC, 1""",
    ),
    (
        "Texts by template and status",
        ("text", "status", "texts", "calls to the provider"),
        """SELECT t.purpose, t.state, count(*), sum((SELECT count(*) FROM text_attempt a WHERE a.text_id = t.id))
           FROM text t GROUP BY 1, 2 ORDER BY 1, 2""",
    ),
    (
        "Clinic cases by urgency",
        ("urgency", "about", "open", "overdue", "closed"),
        """SELECT urgency, kind, count(*) FILTER (WHERE closed_at IS NULL),
                  count(*) FILTER (WHERE closed_at IS NULL AND due_at < %(now)s),
                  count(*) FILTER (WHERE closed_at IS NOT NULL)
           FROM clinic_case GROUP BY 1, 2
           ORDER BY array_position(ARRAY['urgent', 'soon', 'routine'], urgency::text), 2""",
    ),
)

_KITS: Final = """
SELECT k.code, k.state, coalesce(d.kind, ''), coalesce(c.kind, ''), c.closed_at IS NULL AND c.id IS NOT NULL,
       coalesce((SELECT jsonb_object_agg(s.test || '/' || s.site, s.outcome)
                 FROM result_series s WHERE s.kit_id = k.id), '{}'),
       coalesce((SELECT jsonb_agg(jsonb_build_array(t.purpose, t.state) ORDER BY t.id)
                 FROM text t WHERE t.kit_id = k.id), '[]'),
       coalesce((SELECT jsonb_agg(q.reason ORDER BY q.id) FROM quarantined_row q WHERE q.kit_id = k.id), '[]')
FROM kit k
LEFT JOIN release_decision d ON d.id = k.current_decision_id
LEFT JOIN clinic_case c ON c.key = 'kit:' || k.id || ':results'
ORDER BY k.id
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of counts."""

    title: str
    columns: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True, slots=True)
class KitLine:
    """Where one kit stands: codes and closed words only."""

    code: str
    state: str
    decision: str
    case: str
    case_open: bool
    outcomes: Mapping[str, str]
    texts: tuple[tuple[str, str], ...]
    """(purpose, state) in the order in which they were owed."""
    quarantined: tuple[str, ...]


def count_everything(session: Session, *, now: object) -> list[Table]:
    """Counts by stage, at one moment. `now` is service time, aware UTC."""
    on = cursor(session)
    tables = []
    for title, columns, query in _TABLES:
        on.execute(query, {"now": now})
        tables.append(Table(title, columns, tuple(tuple(str(value) for value in row) for row in on)))
    return tables


def list_kits(session: Session) -> list[KitLine]:
    """One line a kit, without anybody's name: for a judge who knows what each kit should have come to."""
    on = cursor(session)
    on.execute(_KITS)
    return [
        KitLine(code, state, decision, case, case_open, outcomes, tuple(map(tuple, texts)), tuple(quarantined))
        for code, state, decision, case, case_open, outcomes, texts, quarantined in on
    ]
