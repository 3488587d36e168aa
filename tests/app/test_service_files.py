"""A council's file is refused at start by its key, and shipped ones are whole."""

import pytest

from app.service import SHIPPED, load_service
from models.rules.errors import Code, ServiceError

LARKFIELD = (SHIPPED / "larkfield.toml").read_text()


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ('id = "market-street"', 'id = "Market Street"', "collection.points.0.id must be small letters"),
        ('id = "market-street"', 'id = "harbour-house"', "collection.points.0.id must be"),
        (
            'postcode = "EC1A 1BB"',
            'postcode = "ec1a1bb"',
            "points.1.postcode is no postcode, or not written",
        ),
        ('told_as = "22 Market Street"', 'told_as = "Sexual Health Clinic"', "points.0.told_as is said in texts"),
        ('told_as = "22 Market Street"', 'told_as = ""', "points.0.told_as is said in texts"),
        ('told_as = "22 Market Street"', f'told_as = "{"x" * 41}"', "points.0.told_as is said in texts"),
        ('lines = ["3 Harbour Lane", "London"]', "lines = []", "collection.points.1 needs a name, and an address"),
        ("hold_days = 42", "hold_days = 0", "collection.hold_days must be a day or more"),
        ("return_labels = false", "return_labels = true", 'post.return_labels needs way = "click_and_drop"'),
    ],
)
def test_what_nobody_could_be_sent_or_send_back_stops_the_start(tmp_path, was, becomes, says):
    assert was in LARKFIELD
    path = tmp_path / "larkfield.toml"
    path.write_text(LARKFIELD.replace(was, becomes, 1))

    with pytest.raises(ServiceError) as refused:
        load_service(path)

    assert refused.value.code is Code.SETTINGS
    assert says in refused.value.message
