"""The contract between server and sites, the only thing that both sides import.

`schedule` and `aggregation`: what a run computes; `messages`: what is asked and answered;
`score_counts`: how the model is measured; `receipt`: what a run costs; `wire`: the messages as
Flower carries them; `keys`, `sources`, `flower`: how nodes, versions and processes are named;
`limits`: sizes that no message exceeds.

`wire` and `receipt` are imported by name: whoever reads a scenario or a schedule needs no Flower.
"""

from server.protocol.aggregation import Aggregation
from server.protocol.flower import (
    FLOWER_SWITCHES,
    SIMULATED_SITES,
    run_folder,
)
from server.protocol.keys import (
    JoinRequest,
    fingerprint,
    grouped,
    key_id,
    kit_statement,
    spaced,
)
from server.protocol.limits import (
    MAX_COHORT,
    MAX_JSON,
    MAX_MESSAGE,
    MAX_ROUNDS,
    MAX_TENSORS,
    MAX_TEXT,
    MAX_VALUES,
    NAME,
    RUN_ID,
)
from server.protocol.messages import (
    INTERNAL_ERROR,
    PROTOCOL_VERSION,
    Admit,
    AdmitAnswer,
    Agree,
    AgreeAnswer,
    Answer,
    Confirm,
    ConfirmAnswer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Measure,
    MeasureAnswer,
    ProtocolError,
    Refusal,
    RefusalCode,
    Request,
    RequestHeader,
    Tensors,
    Train,
    TrainAnswer,
    metadata,
)
from server.protocol.schedule import (
    LABEL_OBJECTIVES,
    BuiltIn,
    Objective,
    Phase,
    PublicObjective,
    Schedule,
    Sharing,
    learning_rate,
    ramp,
)
from server.protocol.sources import (
    PACKAGES,
    source_hash,
)

__all__ = [
    "FLOWER_SWITCHES",
    "INTERNAL_ERROR",
    "LABEL_OBJECTIVES",
    "MAX_COHORT",
    "MAX_JSON",
    "MAX_MESSAGE",
    "MAX_ROUNDS",
    "MAX_TENSORS",
    "MAX_TEXT",
    "MAX_VALUES",
    "NAME",
    "PACKAGES",
    "PROTOCOL_VERSION",
    "RUN_ID",
    "SIMULATED_SITES",
    "Admit",
    "AdmitAnswer",
    "Aggregation",
    "Agree",
    "AgreeAnswer",
    "Answer",
    "BuiltIn",
    "Confirm",
    "ConfirmAnswer",
    "Evaluate",
    "EvaluateAnswer",
    "Hello",
    "HelloAnswer",
    "JoinRequest",
    "Measure",
    "MeasureAnswer",
    "Objective",
    "Phase",
    "ProtocolError",
    "PublicObjective",
    "Refusal",
    "RefusalCode",
    "Request",
    "RequestHeader",
    "Schedule",
    "Sharing",
    "Tensors",
    "Train",
    "TrainAnswer",
    "fingerprint",
    "grouped",
    "key_id",
    "kit_statement",
    "learning_rate",
    "metadata",
    "ramp",
    "run_folder",
    "source_hash",
    "spaced",
]
