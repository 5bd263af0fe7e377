"""Limits of every message: what either side reads before it looks at the meaning."""

MAX_MESSAGE = 256 * 2**20
"""Size of a message, bytes: more than twice what the largest preset shares."""
MAX_TENSORS = 4_096
"""Number of tensors in a message."""
MAX_VALUES = 2**28
"""Number of values in all tensors of a message together."""
MAX_ROUNDS = 10_000
"""Number of rounds of a phase."""
MAX_JSON = 2**20
"""Characters of a schedule, a receipt or any other JSON text."""
MAX_TEXT = 4_096
"""Characters of any other text."""
NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Pattern of the names of phases and sites, which become part of file names and certificates."""
WORD = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Pattern of a name that a site chooses, such as that of a task."""
RUN_ID = r"[A-Za-z0-9-]{1,64}"
"""Pattern of a run id, which becomes part of file names at the sites."""
MAX_COHORT = 512
"""Largest number of sites whose masked answers are added up. Their sum stays below 2**62 and cannot
wrap, whatever they send."""
