"""The refusals of a guard, one class for each code of the protocol.

A refusal's text goes to the server. It depends on code, configuration, the request and the ledger,
never on a record.
"""

from medformer.errors import MedFormerError
from server.protocol import RefusalCode


class Refused(MedFormerError):
    """Base of all refusals that are sent to the server."""

    code: RefusalCode = "policy"


class BudgetExhausted(Refused):
    """The request needs more than what is left of the site's budget or the run's spare rounds."""

    code: RefusalCode = "budget-exhausted"


class PolicyForbids(Refused):
    """The site's rules do not allow the request."""

    code: RefusalCode = "policy"


class ClosedNow(Refused):
    """The site trains at other hours; the server asks again later."""

    code: RefusalCode = "closed-now"


class ApprovalPending(Refused):
    """A person at the hospital has to approve this run first."""

    code: RefusalCode = "approval-pending"


class BadRequest(Refused):
    """The request contradicts the protocol, the schedule or an earlier request."""

    code: RefusalCode = "bad-request"


class LedgerRolledBack(Refused):
    """The site's ledger lacks a row whose hash the server holds: an old copy was restored."""

    code: RefusalCode = "ledger-rolled-back"


class AttemptLost(Refused):
    """This attempt was started and left no answer; the server asks for the next attempt."""

    code: RefusalCode = "attempt-lost"
