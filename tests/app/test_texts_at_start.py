"""A council is not in force before all its texts may leave: the fault shows at start, not when a text is due."""

import pytest

from app.service import SHIPPED
from app.wiring import Wiring
from models.rules.errors import Code, ServiceError
from tests.support import web


@pytest.fixture
def start(db, tmp_path):
    def start(old, new):
        shipped = (SHIPPED / "larkfield.toml").read_text(encoding="utf-8")
        assert old in shipped
        (tmp_path / "larkfield.toml").write_text(shipped.replace(old, new), encoding="utf-8")
        home = web.home_on(db, public_base_url="http://127.0.0.1:1", issuer="http://127.0.0.1:1", service_dir=tmp_path)
        wired = Wiring(home.settings)
        try:
            return wired.services
        finally:
            wired.engine.dispose()

    return start


def test_a_council_whose_texts_all_fit_starts(start):
    assert set(start("Larkfield Post", "Larkfield Mail")) == {"larkfield"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('text_name = "Larkfield Post"', 'text_name = "Larkfield Sexual Health"'),
        ('phone = "020 7946 0321"', f'phone = "{"020 7946 0321 or " * 6}"'),
    ],
)
def test_a_council_whose_name_or_phone_spoils_a_text_does_not_start(start, old, new):
    with pytest.raises(ServiceError, match="may not leave") as refused:
        start(old, new)

    assert refused.value.code is Code.TEMPLATE
