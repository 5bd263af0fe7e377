"""Four sites divide a set, and the server sees their sum alone: each adds a share of the noise."""

from simulations.benchmarks.utility.settings.divided import evenly
from simulations.benchmarks.utility.settings.setting import BETTER, SITES, Question, Setting

SETTINGS = {"secure-dp": Setting(private=True, members=evenly, shared_by=SITES, shares=True)}
QUESTIONS = (
    Question("secure-dp", ("federated-dp",)),
    Question(f"secure-dp{BETTER}", (f"federated-dp{BETTER}",)),
    Question("secure-dp", ("central-dp",)),
    Question("secure-dp", ("local-dp",)),
)
