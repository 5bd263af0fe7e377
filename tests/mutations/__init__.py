"""Known ways to break the mechanism by a change of a line or two, grouped by what they break."""

from tests.mutations.budget import BUDGET
from tests.mutations.durability import DURABILITY
from tests.mutations.mechanism import MECHANISM
from tests.mutations.mutation import Mutation, mutated
from tests.mutations.randomness import RANDOMNESS
from tests.mutations.sums import SUMS

MUTATIONS = (*MECHANISM, *RANDOMNESS, *BUDGET, *DURABILITY, *SUMS)

__all__ = ["MUTATIONS", "Mutation", "mutated"]
