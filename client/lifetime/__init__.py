"""The life of one site's record set as its ledger tells it: facts, the page for its officer."""
