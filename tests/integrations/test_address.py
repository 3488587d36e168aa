"""Which authority a postcode lies in, from the installed ONS directory (clinical.md 2.1)."""

import pytest

from integrations.address import Authorities


@pytest.fixture(scope="module")
def authorities() -> Authorities:
    return Authorities()


@pytest.mark.parametrize(
    ("postcode", "authority"),
    [
        ("LS1 4AP", "E08000035"),
        ("ls14ap", "E08000035"),
        ("ZE1 0AA", "S12000027"),
        ("JE2 3AB", "L99999999"),
        ("IM1 1AA", "M99999999"),
    ],
)
def test_a_postcode_lies_in_its_local_authority(authorities: Authorities, postcode: str, authority: str) -> None:
    assert authorities.authority_of(postcode) == authority


@pytest.mark.parametrize("postcode", ["ZE4 1AA", "JE1", "", "QQ1 1QQ", "LS1 4AP LS1", "ŁS1 4AP", "../../x"])
def test_what_the_directory_does_not_hold_is_unknown_and_not_elsewhere(authorities: Authorities, postcode: str) -> None:
    assert authorities.authority_of(postcode) is None


def test_every_postcode_of_a_letter_is_found_again(authorities: Authorities) -> None:
    assert authorities.authority_of("ZE3 9JY") == authorities.authority_of("ZE1 0AA")
    letter = authorities._letters["Z"]
    numbers = [letter.find(letter.at(place).decode().rstrip()) for place in range(len(letter.authorities))]

    assert numbers == list(letter.authorities)
