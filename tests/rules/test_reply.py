"""What a reply asks for; what is not understood goes to a person (H5, H24; FEATURES 55, 56)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.reply import FOR_A_PERSON, ReplyKind, read_reply

SAID = {
    ReplyKind.STOP: "STOP| stop. |Unsubscribe|opt-out|Please stop!|stop texting me|STOPIWCH|Stopio"
    "|peidiwch \u00e2 thecstio"
    "|Don\u2019t text me again|dim mwy",
    ReplyKind.START: "START|unstop|Dechrau|yes",
    ReplyKind.HELP: "HELP|info|Cymorth",
    ReplyKind.THANKS: "Thanks!|ok thank you so much|Diolch yn fawr|\U0001f44d cheers|OK|ta",
    ReplyKind.WRONG_PERSON: "Who is this?|who's this|WRONG|Not me|wrong number mate|Pwy yw hwn?|rhif anghywir"
    "|I didn't order anything|stop, you have the wrong number",
    ReplyKind.DISTRESS: "I want to die|I can't cope any more|he hits me|I\u2019m not safe|STOP I will kill myself"
    "|dw i eisiau marw|lladd fy hun|thinking about suicide",
    ReplyKind.MESSAGE: "Can you ring me?|when will I hear|stop by the clinic on Monday?|ok?|\U0001f44d||asap plz"
    "|thanks but what does it mean|beth mae hyn yn ei olygu?",
}


@pytest.mark.parametrize(("kind", "said"), SAID.items())
def test_a_reply_is_read_as_what_it_plainly_says(kind, said):
    bodies = said.split("|")
    assert {body: read_reply(body) for body in bodies} == dict.fromkeys(bodies, kind)


@pytest.mark.parametrize("word", ["STOP", "START", "HELP"])
def test_what_the_provider_has_acted_on_is_what_it_was_unless_somebody_is_in_distress(word):
    assert read_reply("enough of this", provider_word=word) is ReplyKind(word.lower())
    assert read_reply("enough of this, I want to die", provider_word=word) is ReplyKind.DISTRESS


@given(before=st.text(max_size=40), after=st.text(max_size=40))
def test_distress_is_heard_whatever_stands_round_it(before, after):
    assert read_reply(f"{before} I want to die {after}") is ReplyKind.DISTRESS


@given(
    words=st.lists(
        st.sampled_from(["where", "is", "my", "parcel", "when", "result", "please", "tomorrow", "monday"]), min_size=2
    )
)
def test_words_that_are_no_keyword_go_to_a_person(words):
    assert read_reply(" ".join(words)) in FOR_A_PERSON
