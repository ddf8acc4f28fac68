"""One try to deliver one webhook. Whose turn it is, and when to try again, is for whoever keeps the outbox."""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.core.netguard import UrlRefused, check_url
from headrace.core.webhook import Outcome, Sign, Verdict, Webhook, judge, signed_headers
from headrace.outbound.exchange import Call, CallFailed, Outbound, Patience

#: Seconds that a receiver has, from the lookup of its name to the head of its answer. fal's figure.
TIMEOUT_S: Final = 15.0

_PATIENCE: Final = Patience(connect_s=TIMEOUT_S, idle_s=TIMEOUT_S)


async def deliver(webhook: Webhook, outbound: Outbound, sign: Sign, now: float) -> Outcome:
    """Post a webhook once, signed for `now` (seconds since 1970), and return what became of it. Raises nothing.

    The receiver's status is all that counts: its body is not read. A URL that must not be called is permanent,
    everything else on the way may pass.
    """
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    headers = {"Content-Type": "application/json", **signed_headers(webhook, sign, now)}
    try:
        target = check_url(webhook.url, outbound.policy)
        async with outbound.call(Call("POST", target, headers, webhook.body), _PATIENCE, deadline) as answer:
            return judge(answer.status, answer.headers.get("retry-after"), now)
    except UrlRefused as refused:
        return Outcome(Verdict.PERMANENT, str(refused))
    except CallFailed as failed:
        return Outcome(Verdict.RETRY, str(failed))
