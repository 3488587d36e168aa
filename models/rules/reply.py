"""What a resident's reply to a text is: a word to the provider, or something that a person must read.

Only whole keywords and plain phrases are understood. Whatever is not goes to a person. Sources:
sms-and-post.md A1 (the provider's stop words); clinical.md 9 (H5, H24); FEATURES 55, 56.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Final


class ReplyKind(StrEnum):
    """What a reply asks for."""

    DISTRESS = "distress"
    WRONG_PERSON = "wrong_person"
    STOP = "stop"
    START = "start"
    HELP = "help"
    THANKS = "thanks"
    MESSAGE = "message"
    """Anything else: a question, a wish to be rung, or words that nobody foresaw."""


FOR_A_PERSON: Final = frozenset({ReplyKind.DISTRESS, ReplyKind.WRONG_PERSON, ReplyKind.HELP, ReplyKind.MESSAGE})
"""Replies that somebody must read and act on."""

_STOP: Final = frozenset(
    [
        "stop",
        "stopall",
        "stop all",
        "unsubscribe",
        "cancel",
        "end",
        "quit",
        "revoke",
        "optout",
        "opt out",
        "please stop",
        "stop please",
        "stopiwch",
        "stopio",
        "peidiwch",
        "dim mwy",
        "stopiwch os gwelwch yn dda",
    ]
)
_STOP_TEXTING: Final = re.compile(
    r"\b(?:stop (?:texting|messaging|sending|these texts)|(?:do not|dont) (?:text|message) me|no more texts"
    r"|peidiwch a (?:thecstio|danfon|anfon))\b"
)
_START: Final = frozenset(
    ["start", "unstop", "yes", "subscribe", "opt in", "optin", "dechrau", "cychwyn", "ailddechrau"]
)
_HELP: Final = frozenset(["help", "info", "cymorth", "gwybodaeth"])
_THANKS: Final = re.compile(
    r"(?:(?:ok|okay|great|brilliant|lovely|perfect|iawn|gwych) )?"
    r"(?:thanks|thank you|thankyou|thx|ta|cheers|many thanks|diolch|diolch yn fawr)"
    r"(?: (?:so much|very much|a lot|again|bye|for that|for letting me know|yn fawr|am roi gwybod))?|ok|okay|iawn"
)
_WRONG_PERSON: Final = re.compile(
    r"who (?:is|are) (?:this|you|that)|whos this|who dis|wrong (?:number|person)|not me|^wrong$|not my number"
    r"|(?:do not|dont) know (?:you|who (?:this|you))|you have the wrong|new number|never ordered"
    r"|did(?:nt| not) order"
    r"|pwy (?:yw|ydy|ydi) h[wyo]n|pwy (?:ydych|dach|wyt) (?:chi|ti)|rhif anghywir|person anghywir|nid fi|dim fi"
)
_DISTRESS: Final = re.compile(
    r"\b(?:suicid\w*|kill(?:ing)? (?:my ?self|me)|end (?:it all|my life)|want(?:ed)? to die|wanna die|better off dead"
    r"|(?:can ?not|cant) (?:cope|go on|live)|self ?harm\w*|hurt(?:ing)? my ?self|cut(?:ting)? my ?self|overdose\w*"
    r"|no point (?:in )?living|desperate|panick?\w*|terrified|raped?|assault\w*|abus\w*|attack(?:ed|s)"
    r"|hits me|forced me|beat(?:en|s|ing)? me|(?:not|dont feel) safe|unsafe|in danger|scared of (?:him|her|them|my)|999"
    r"|lladd fy ?hun(?:an)?|hunanladdiad|eisiau marw|hunan ?niwe?id\w*|anafu fy ?hun(?:an)?|methu (?:ymdopi|byw)"
    r"|trais|treisio|fy ngham-?drin|ddim yn ddiogel|ofnus)\b"
)


def read_reply(body: str, *, provider_word: str = "") -> ReplyKind:
    """What a reply is, the gravest reading first. `provider_word`: STOP, START or HELP as the provider acted on it.

    Distress outweighs every keyword, the provider's included: then a person reads the whole.
    """
    words = _plain(body)
    if _DISTRESS.search(words):
        return ReplyKind.DISTRESS
    acted_on = {"STOP": ReplyKind.STOP, "START": ReplyKind.START, "HELP": ReplyKind.HELP}.get(provider_word.upper())
    if acted_on is not None:
        return acted_on
    if words in _STOP:
        return ReplyKind.STOP
    if _WRONG_PERSON.search(words):
        return ReplyKind.WRONG_PERSON
    if _STOP_TEXTING.search(words):
        return ReplyKind.STOP
    if words in _START:
        return ReplyKind.START
    if words in _HELP:
        return ReplyKind.HELP
    return ReplyKind.THANKS if _THANKS.fullmatch(words) and "?" not in body else ReplyKind.MESSAGE


def _plain(body: str) -> str:
    """Lower case without accents, apostrophes and marks, one space between words."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", body.casefold()) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", " ", re.sub(r"['\u2019`\u00b4]", "", bare)).strip()
