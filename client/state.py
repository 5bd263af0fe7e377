"""A site's state folder: kept answers and local tensors, written before they are relied on.

ledger.sqlite            the privacy ledger
lock                     held while a request is answered
runs/RUN/answers/KEY     an answer that budget was spent for, until the server acknowledges it
runs/RUN/state/rN-aM     local tensors after round N, attempt M
runs/RUN/class-counts    noisy counts of the classes, drawn once a run
runs/RUN/masking         private keys of the run, with which answers are masked

Every file is written under another name, synced, and renamed: after a power cut it is there in
full or not at all.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from client.local_state import LocalState
from medformer.common.files import replace_file
from medformer.common.locks import locked
from medformer.errors import MedFormerError
from medformer.library.model_file import KEY
from server.protocol import RUN_ID, TrainAnswer, metadata
from server.protocol.masking import from_words, to_words

NO_DP_MARK = "DP-NONE.txt"
"""Name of a file that marks models which a hospital trained for itself without privacy. A folder
that holds it is never taken as a state folder."""
WORDS = "words"
"""Name under which a kept answer holds its masked words; no tensor of a model has it."""
KEPT_ROUNDS = 4
"""Number of rounds whose local states are kept. A server that lost its newest checkpoints can go
back to an earlier round while this site has already trained later ones."""


class StoreError(MedFormerError):
    """The state folder cannot be read or written."""


class Store:
    """One run's part of a site's state folder.

    Args:
        folder: The site's state folder.
        run_id: Letters, digits and `-`, because it becomes the name of a folder.
    Raises:
        StoreError: The run id is not of this form.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        if not re.fullmatch(RUN_ID, run_id):
            raise StoreError("a run id is 1 to 64 letters, digits or '-'")
        self._answers = folder / "runs" / run_id / "answers"
        self._states = folder / "runs" / run_id / "state"
        self._counts = folder / "runs" / run_id / "class-counts"
        self._measurement = folder / "runs" / run_id / "measurement"
        self.masking = folder / "runs" / run_id / "masking"

    def put_answer(self, key: str, answer: TrainAnswer) -> str:
        """Store an answer durably.

        Args:
            key: Hash of everything that the answer depends on; becomes a file name.
            answer: As it will be sent.
        Returns:
            SHA-256 of the file, for the ledger.
        """
        head = metadata(answer)
        tensors = {k: torch.from_numpy(v) for k, v in answer.tensors.items()}
        if answer.words is not None:
            tensors[WORDS] = torch.from_numpy(from_words(answer.words))
        data = save(tensors, {"answer": json.dumps(head)})
        replace_file(self._answers / key, data)
        return hashlib.sha256(data).hexdigest()

    def get_answer(self, key: str, sha256: str) -> TrainAnswer | None:
        """Return a stored answer.

        Args:
            key: As for `put_answer`.
            sha256: The hash that the ledger holds of it.
        Returns:
            None if the file is gone or does not have this hash.
        """
        path = self._answers / key
        try:
            # The ledger holds the hash of what was charged: other bytes must not leave.
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                return None
        except OSError:
            return None
        tensors, head = _read(path)
        numpy = {k: v.numpy() for k, v in tensors.items()}
        words = to_words(numpy.pop(WORDS)) if WORDS in numpy else None
        return TrainAnswer(**json.loads(head["answer"]), tensors=numpy, words=words)

    def forget_answers(self, keys: list[str]) -> None:
        """Delete answers that the server has stored. The ledger keeps a row for each of them.

        Args:
            keys: As for `put_answer`; missing files are no error.
        """
        for key in keys:
            (self._answers / key).unlink(missing_ok=True)

    def put_state(self, round_: int, attempt: int, state: LocalState) -> None:
        """Store the local tensors after a round, and delete those of the oldest rounds.

        Args:
            round_: The round that was trained.
            attempt: Its attempt.
            state: The tensors after it.
        """
        tensors = {f"parameters/{k}": v for k, v in state.parameters.items()}
        tensors |= {f"momentum/{k}": v for k, v in state.momentum.items()}
        tensors |= {f"average/{k}": v for k, v in state.average.items()}
        head = {
            "averaged": str(state.averaged),
            "phase": state.phase,
            "dp": "all training steps",
        }
        replace_file(self._states / f"r{round_:06d}-a{attempt:03d}", save(tensors, head))
        for old, path in self._state_files():
            # In phases that a site trains alone, a state is as large as the model.
            if old[0] <= round_ - KEPT_ROUNDS:
                path.unlink()

    def get_state(self, before_round: int) -> LocalState | None:
        """Return the newest state of the rounds before a round, or None.

        Args:
            before_round: The round that comes next.
        Raises:
            StoreError: The file is damaged, or is a model file that another program put there.
        """
        older = [path for number, path in self._state_files() if number[0] < before_round]
        # Not an error here: `AdmittedRun.state_before` knows whether there should be one.
        if not older:
            return None
        try:
            tensors, head = _read(older[-1])
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{older[-1]}: the site's own tensors cannot be read") from error
        parts: dict[str, dict[str, Tensor]] = {"parameters": {}, "momentum": {}, "average": {}}
        for name, value in tensors.items():
            part, _, tensor = name.partition("/")
            parts[part][tensor] = value
        return LocalState(**parts, averaged=int(head["averaged"]), phase=head.get("phase", ""))

    def put_counts(self, counts: Mapping[str, Sequence[float]]) -> None:
        """Store the noisy class counts durably.

        Args:
            counts: Task -> noisy count of each class.
        """
        replace_file(self._counts, json.dumps(counts, sort_keys=True).encode())

    def get_counts(self) -> tuple[dict[str, list[float]], str] | None:
        """Return the stored counts and their SHA-256, or None if there are none.

        Raises:
            StoreError: The file cannot be read.
        """
        if not self._counts.exists():
            return None
        try:
            data = self._counts.read_bytes()
            return json.loads(data), hashlib.sha256(data).hexdigest()
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._counts}: the class counts cannot be read") from error

    def put_measurement(self, counts: str) -> str:
        """Store the noisy counts of the model's measurement durably.

        Args:
            counts: As they will be sent.
        Returns:
            SHA-256 of the file, for the ledger.
        """
        data = counts.encode()
        replace_file(self._measurement, data)
        return hashlib.sha256(data).hexdigest()

    def get_measurement(self, sha256: str) -> str | None:
        """Return the stored counts; None if they are gone or do not have this hash.

        Args:
            sha256: The hash that the ledger holds of them.
        """
        try:
            data = self._measurement.read_bytes()
        except OSError:
            return None
        # The ledger holds the hash of what was charged: other bytes must not leave.
        return data.decode() if hashlib.sha256(data).hexdigest() == sha256 else None

    def _state_files(self) -> list[tuple[tuple[int, int], Path]]:
        """Return ((round, attempt), path) of the stored states, oldest first."""
        found = []
        for path in self._states.glob("r*-a*"):
            if match := re.fullmatch(r"r(\d+)-a(\d+)", path.name):
                found.append(((int(match[1]), int(match[2])), path))
        return sorted(found)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock the site's state folder, so that one process at a time answers for a site.

    Args:
        folder: The state folder; made if it does not exist, for its owner alone.
    Raises:
        StoreError: The folder cannot be written, or holds models trained without privacy.
    """
    # Tensors trained without privacy must never become a guard's local state.
    if (folder / NO_DP_MARK).exists():
        raise StoreError(
            f"{folder}: holds what `site finetune` made without privacy, and no state: a guard "
            "needs a folder of its own"
        )
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(locked(folder / "lock"))
        except OSError as error:
            raise StoreError(
                f"{folder}: cannot be written ({error}): choose another folder"
            ) from error
        yield


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a safetensors file that this module wrote."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        # A model file may come from training without privacy, which would continue as if private.
        if KEY in metadata:
            raise StoreError(
                f"{path}: is a model file, which may have been trained without privacy; a guard "
                "goes on from its own tensors alone. Restore the state folder from a backup"
            )
        return {k: file.get_tensor(k) for k in file.keys()}, metadata  # noqa: SIM118
