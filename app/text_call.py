"""One call to a provider of texts, and what it came to in the rules' words."""

import logging
from typing import Final

from integrations.ports import NotSent, OutgoingText, Refused, TextSender, Unsure
from models.rules.text_delivery import Answer, DidNotSend, MayHave, Took, WillNot

log: Final = logging.getLogger("kitpost")


def call(sender: TextSender, text: OutgoingText) -> Answer:
    """Makes the one call of one attempt. Whatever is not proved unsent may have gone."""
    try:
        accepted = sender.send(text)
    except NotSent as error:
        return DidNotSend(error.code, error.retry_after_seconds, error.alarm)
    except Refused as error:
        return WillNot(error.code, error.kind)
    except Unsure as error:
        return MayHave(error.code)
    except Exception as error:  # noqa: BLE001 - a fault of ours after the provider took it must not look like unsent
        log.error("a call to the provider ended in %s", type(error).__name__)  # noqa: TRY400 - no foreign words
        return MayHave("unexpected")
    return Took(accepted.provider_id, accepted.status)
