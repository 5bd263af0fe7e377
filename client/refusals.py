"""Why a guard says no. Texts are fixed by code and configuration, never by a record."""

from medformer.errors import MedFormerError
from server.protocol import RefusalCode


class Refused(MedFormerError):
    """Base of the typed refusals that a server may be told."""

    code: RefusalCode = "policy"


class BudgetExhausted(Refused):
    """The site's lifetime budget, or a run's spare rounds, do not cover what is asked."""

    code: RefusalCode = "budget-exhausted"


class PolicyForbids(Refused):
    """The site's rules do not allow what is asked."""

    code: RefusalCode = "policy"


class ClosedNow(Refused):
    """The site trains at other hours: ask again later."""

    code: RefusalCode = "closed-now"


class ApprovalPending(Refused):
    """Somebody at the hospital has to say yes to this run first."""

    code: RefusalCode = "approval-pending"


class BadRequest(Refused):
    """The request contradicts the protocol, the schedule or an earlier request."""

    code: RefusalCode = "bad-request"


class LedgerRolledBack(Refused):
    """The site's ledger lacks a row that the server was told of."""

    code: RefusalCode = "ledger-rolled-back"


class AttemptLost(Refused):
    """This attempt was started and left no answer: ask with the next attempt number."""

    code: RefusalCode = "attempt-lost"
