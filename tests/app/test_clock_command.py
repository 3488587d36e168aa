"""`kitpost clock follow`: each line that is typed gets one answer, whatever became of the one before."""

from typer.testing import CliRunner

from app.cli import cli
from tests.app.test_cli_texts import kitpost  # noqa: F401 - a fixture


def test_a_line_that_is_refused_is_answered_and_the_next_one_is_read(kitpost):  # noqa: F811
    typed = "tomorrow\n2027-01-04T10:30:00\n2027-01-04T10:30:00+00:00\n"

    result = CliRunner().invoke(cli, ["clock", "follow"], input=typed, catch_exceptions=False)

    assert result.exit_code == 0
    no_date, no_offset, no_demo = result.output.splitlines()
    assert no_date.startswith("TO is not a date and time")
    assert no_offset == "TO needs an offset, like +00:00."
    assert no_demo.startswith("Only a database that was made for a demo")
