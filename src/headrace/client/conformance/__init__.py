"""A conformance kit: does a server stream as fal's clients need it? For any server, over raw sockets.

    kit        the exchanges in their order: `check_server`, `find_stream`
    wire       one exchange, recorded: what came, when, in which chunks, and how it ended
    answer     an HTTP answer out of bytes
    stream     a stream's body taken apart
    checks     every check in its order, over what was recorded
    heads, framing, endings, refusals    the checks themselves: pure functions
    findings   what a check finds

Everything but `wire` and `kit` works on values, so each check is tested with bytes that one can see.
"""

from headrace.client.conformance.checks import Result
from headrace.client.conformance.findings import Finding, Verdict
from headrace.client.conformance.kit import NothingToCheck, Plan, check_server, find_stream
from headrace.client.conformance.wire import Target

__all__ = ["Finding", "NothingToCheck", "Plan", "Result", "Target", "Verdict", "check_server", "find_stream"]
