"""Spoiled settings, model files, ledgers and checkpoints: what else is read from a disk."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import save

import medformer
from client.ledger.chain import FILE, LedgerError, checked
from client.ledger.export import export
from client.ledger.export import read as read_ledger
from client.ledger.ledger import Ledger
from client.node.joining import POLICY
from client.policy import Policy
from client.privacy.plan import PrivacyPlan, solve
from client.refusals import BadRequest
from client.site import Privacy, Site
from medformer.common.yaml_file import read_yaml
from medformer.library.card import ModelCard, Promise
from medformer.library.model_file import KEY, read
from server.consortium.declarations import TEMPLATE, Consortium
from server.run.checkpoints import load_state, save_state
from server.run.strategy import State
from simulations.scenario_file import load_scenario, shipped
from tests.fuzz.harm import spoiled

# YAML

SITE = """\
name: north
domain: {name: north, modality: chest-xray, anatomy: chest, channels: 1, spacing: [1.0, 1.0]}
tasks:
  - {name: finding, kind: binary-class, classes: 2, labels: finding, class_weights: [1.0, 2.0]}
data: {source: folder, path: records, classes: [a, b]}
privacy:
  unit: image
  epsilon: 3
  epsilon_budget: 9
  delta: 1.0e-6
  delta_budget: 1.0e-5
  n_public: 1000
"""
DEEP = 20_000
LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
VALUES = (
    ".nan", ".inf", "-.inf", "1e999", "-1", "0", "0x" + "f" * 9_000, "9" * 5_000,
    "1" + ":59" * 9_000,
    "!!python/object/apply:os.mkdir [unpickled]", "!!python/name:os.system", "!!python/tuple [1]",
    "!!timestamp x", "!!int ''", "!!float x", "!!bool x", "!!binary \u20ac", "!!set {a}",
    "!!omap 3",
    "2001-99-99", "&a [*a]", "*nobody", "[" * DEEP, "{a: " * 2_000, "[" * 500 + "]" * 500, "{}",
    "[]",
    "~", "''", "'" + "x" * 300_000 + "'", "\x1b[2J", "'\0'", "|\n", "<<", "? ? ?", "!!null x",
    "yes",
    "{<<: [1]}", "{<<: {epsilon: 3}}", "? [a]\n : b", "{[a]: b}", "{{}: 1}", "1_000", "0o7", "0b1",
    "\ud7ff", "\ufeff", "%YAML 9.9", "--- a\n--- b", "... \n", "\t",
)  # fmt: skip


def yaml_text(text: str, rng: Random) -> bytes:
    """Return settings with an impossible value, a repeated key, a bomb, or broken bytes."""
    lines, how = text.splitlines(), rng.random()
    if how < 0.3:
        return spoiled(text.encode(), rng)
    if how < 0.35:
        return f"{text}\n{LAUGHS}\n".encode()
    if how < 0.4:
        return f"{LAUGHS}\n{text}\nmore: *a11\n".encode()
    if how < 0.5:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
        return "\n".join(lines).encode()
    for _ in range(rng.randint(1, 2)):
        at = rng.choice([i for i, line in enumerate(lines) if ":" in line])
        key, _, rest = lines[at].rpartition(":") if rng.random() < 0.5 else lines[at].partition(":")
        lines[at] = f"{key}: {rng.choice(VALUES)}" + ("}" if rest.endswith("}") else "")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def finite(value: object, depth: int = 0) -> None:
    """No number of accepted settings is NaN or infinite, and nothing is nested without end."""
    assert depth < 50
    if isinstance(value, float):
        assert math.isfinite(value), value
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list, tuple, set)):
        for part in parts:  # type: ignore[union-attr]
            finite(part, depth + 1)


def yaml_case(folder: Path, rng: Random) -> Callable[[], None]:
    scenario = rng.choice(sorted(shipped().values())).read_text()
    model: type[BaseModel]
    text, model = rng.choice((
        (SITE, Site), (POLICY, Policy), (scenario, BaseModel),
        (TEMPLATE.format(name="c", hosts="localhost"), Consortium),
    ))  # fmt: skip
    path = folder / "settings.yaml"
    data = yaml_text(text, rng)
    path.write_bytes(data)

    def case() -> None:
        found = load_scenario(str(path)) if model is BaseModel else read_yaml(path, model)
        finite(found.model_dump())

    return case


# Model files


@lru_cache(maxsize=1)
def model_bytes() -> bytes:
    """Return the bytes of a tiny model as `medformer.save` writes it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        words = {"modalities": ["ct"], "anatomies": ["lung"], "stems": ["2d-1"]}
        task = medformer.Task(name="grades", kind="ordinal-regression", classes=4)
        card = ModelCard(name="test", dp=Promise(kind="public"))
        medformer.save(medformer.build(tasks=[task], **words), path, card)
        return path.read_bytes()


def model_lie(data: bytes, rng: Random) -> bytes:
    """Return a model file whose header misstates its tensors or its model."""
    size = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    meta = json.loads(head["__metadata__"][KEY])
    names = sorted(set(head) - {"__metadata__"})
    name = rng.choice(names)
    how = rng.randrange(12)
    if how == 0:
        head[name]["shape"] = rng.choice(([2**40], [-1], [0], [2**62, 4], [], [1] * 5_000))
    elif how == 1:
        head[name]["data_offsets"] = rng.choice(([0, 2**60], [9, 4], [-4, 4], [0, 0]))
    elif how == 2:
        head[name]["dtype"] = rng.choice(("F64", "I8", "BOOL", "F8_E4M3", "X"))
    elif how == 3:
        head["../" + name] = head.pop(name)
    elif how == 4:
        meta["tasks"][0]["classes"] = rng.choice((10**9, 2, -1, 1e400, "9"))
    elif how == 5:
        field = rng.choice(("stems", "modalities", "anatomies", "domains"))
        meta["config"][field] = [f"w{i}" for i in range(rng.choice((3, 3_000, 200_000)))]
    elif how == 6:
        meta["config"]["preset"] = rng.choice(("base", "huge", 3))
    elif how == 7:
        meta["card"]["dp"] = rng.choice(({}, {"kind": "federated-dp", "epsilon": math.nan}, None))
    elif how == 8:
        body = body[:100] + struct.pack("<f", rng.choice((math.nan, math.inf))) * 9 + body[136:]
    elif how == 9:
        meta["config"]["stems"] = ["3d-99", "2d-1"]
    text = json.dumps(meta)
    if how == 10:
        text = "[" * 200_000
    if how == 11:
        text = json.dumps(meta)[:-1] + ', "more": ' + "9" * 6_000 + "}"
    head["__metadata__"][KEY] = text
    raw = json.dumps(head).encode()
    claimed = rng.choice((len(raw), len(raw), len(raw), 2**63, 99_999_999, 0))
    return struct.pack("<Q", claimed) + raw + body


def model_case(folder: Path, rng: Random) -> Callable[[], None]:
    good = model_bytes()
    data = model_lie(good, rng) if rng.random() < 0.6 else spoiled(good, rng)
    path = folder / "m.safetensors"
    path.write_bytes(data)
    as_model = rng.random() < 0.5

    def case() -> None:
        if as_model:
            parameters = dict(medformer.load(path).named_parameters())
            assert all(bool(p.isfinite().all()) for p in parameters.values())
            return
        _, tensors = read(path)
        for tensor in tensors.values():
            assert tensor.dtype == np.float32
            assert np.isfinite(tensor).all()

    return case


# Ledgers

PRIVACY = Privacy(epsilon=4, n_public=64, epsilon_budget=20)


@lru_cache(maxsize=1)
def plan() -> PrivacyPlan:
    from server.protocol import Phase, Schedule

    phase = Phase(name="s", rounds=2, objectives={"supervised": 1.0}, expected_batch_size=16)
    return solve(Schedule(phases=(phase,), spare_rounds=1), PRIVACY)


@lru_cache(maxsize=1)
def ledger_bytes() -> tuple[bytes, bytes, tuple[float, float], int]:
    """Return a ledger with two runs as SQLite and as JSON lines, their cost, and its rows."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Ledger(folder / FILE, PRIVACY) as ledger:
            for run in ("run-1", "run-2"):
                kept = ledger.reserve(run, "{}", "{}", plan())
                for round_ in (1, 2):
                    ledger.start_attempt(kept, round_, 0, f"{run}-{round_}")
                    ledger.record_answer(run, round_, 0, f"{run}-{round_}", "0" * 64)
            rows, spent = ledger.rows.all(), ledger.account.spent()
        export(rows, folder / "lines")
        return (folder / FILE).read_bytes(), (folder / "lines").read_bytes(), spent, len(rows)


def ledger_case(folder: Path, rng: Random) -> Callable[[], None]:
    binary, lines, spent, count = ledger_bytes()
    if rng.random() < 0.25:
        (folder / "lines").write_bytes(spoiled(lines, rng))

        def case() -> None:
            rows = read_ledger(folder / "lines")
            whole = [row for row in rows if json.loads(json.dumps(row.hash))]
            assert len(list(checked(whole, "again"))) <= count

        return case

    (folder / "runs").mkdir()  # something was trained
    data = (
        spoiled(binary, rng) if rng.random() < 0.9 else rng.choice((b"", binary[:4096], b"x" * 100))
    )
    (folder / FILE).write_bytes(data)
    site = Site.model_validate({
        "name": "north", "privacy": PRIVACY, "data": {"source": "phantoms", "kind": "chest"},
        "domain": {"name": "n", "modality": "ct", "anatomy": "lung", "channels": 1},
        "tasks": [{"name": "t", "kind": "binary-class", "classes": 2}],
    })  # fmt: skip

    def opened() -> None:
        """A ledger that opens has every row, and its answers to each question are those of before;
        what it cannot answer it says as a LedgerError."""
        with Ledger.of(site, folder) as ledger:
            assert len(ledger.rows.all()) == count
            assert ledger.account.spent() == spent
            assert len(ledger.answers("run-2")) == 2
            kept = ledger.reservation("run-1")
            assert kept is not None
            with pytest.raises((BadRequest, LedgerError), match=r"another request|ledger"):
                ledger.start_attempt(kept, 1, 0, "another")

    return opened


# Checkpoints


def checkpoint_case(folder: Path, rng: Random) -> Callable[[], None]:
    own = [
        State(n, {"encoder.a": np.full(6, n, np.float32)}, {}, {"encoder.a": np.ones(6, "f4")}, n)
        for n in range(3)
    ]
    states = [replace(one, kinds={"ct_chest_2d-1": one} if one.round else {}) for one in own]
    for state in states:
        save_state(folder, state)
    kind = rng.choice(("json", "safetensors"))
    file = folder / f"000002.{kind}"
    file.write_bytes(spoiled(file.read_bytes(), rng))
    if rng.random() < 0.2:
        other = folder / f"000001.{kind}"
        other.write_bytes(other.read_bytes()[:-1])
    if rng.random() < 0.1:
        file.write_bytes(save({"elsewhere/x": np.ones(3)}) if kind != "json" else b"[" * 200_000)

    def case() -> None:
        state = load_state(folder)
        assert state is not None
        good = states[state.round]
        assert state.kinds.keys() == good.kinds.keys()
        for found, written in ((state, good), (state.of("ct_chest_2d-1"), own[state.round])):
            assert found.averaged == written.averaged
            for part in ("shared", "momentum", "average"):
                mine, wanted = getattr(found, part), getattr(written, part)
                assert mine.keys() == wanted.keys()
                assert all(np.array_equal(mine[k], wanted[k]) for k in mine)

    return case
