"""How the product keeps its connections."""

from sqlalchemy import Engine, text

from app.database import make_engine

WHO = text("SELECT pg_backend_pid()")


def whose(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(WHO).scalar_one())


def test_a_connection_that_died_while_it_idled_is_replaced_before_it_is_used(engine, monkeypatch):
    monkeypatch.setattr("app.database.ASK_AFTER_IDLE_SECONDS", 0.0)
    first = whose(engine)
    another = make_engine(engine.url)
    with another.begin() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first}).scalar_one()
    another.dispose()

    assert whose(engine) != first


def test_a_connection_that_was_at_work_a_moment_ago_is_not_asked(engine, monkeypatch):
    whose(engine)
    asked = []
    monkeypatch.setattr(engine.dialect, "do_ping", asked.append)

    whose(engine)
    assert asked == []
    monkeypatch.setattr("app.database.ASK_AFTER_IDLE_SECONDS", 0.0)
    whose(engine)
    assert len(asked) == 1
