"""Code from outside: what a hospital lets run, which sources run, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import medformer
from client.commands.consent import summary
from client.data.folder import doubts
from client.data.load import forget, load, read
from client.data.manifest import hashes
from client.guard import Guard
from client.node.permissions import ExposedError, installed_extensions
from client.policy import Policy
from client.privacy.models.outside import check_network, check_objective
from client.privacy.noise import SecureNoise
from client.privacy.per_example import EngineError
from client.privacy.plan import solve
from client.site import Privacy, Site
from client.training import site_model
from medformer.config import Task
from medformer.errors import ConfigError, ModelFileError
from medformer.extensions import code, reference
from server.extensions.rule import check_sources, moved_by
from server.protocol import AdmitAnswer, Phase, Refusal, Schedule, extensions
from server.run.errors import FederationError
from server.run.federation import Federation, PublicSite
from tests.conftest import CHEST, CONFIG, OPACITY, OPEN, admit, ledger_rows, train

KIT = """
import torch
from torch import nn


def good(model, batch, generator, weight):
    shifted = batch.images + 0.1 * torch.randn(batch.images.shape, generator=generator)
    return weight * model.tokens(shifted, batch.domain).square().mean((1, 2))


def plain(model, batch, generator, weight):
    return model.tokens(batch.images, batch.domain).square().mean((1, 2))


def scalar(*given):
    return good(*given).mean()


def averaged(*given):
    return good(*given) - good(*given).mean().detach()


def divided(model, batch, *given):
    return good(model, batch, *given) / len(batch)


def ranked(*given):
    losses = plain(*given)
    return losses * (1 + losses.argsort().argsort())


def drawn(model, batch, generator, weight):
    return plain(model, batch, generator, weight) * torch.rand(len(batch))


calls = []


def counted(model, batch, generator, weight):
    calls.append(None)
    return plain(model, batch, generator, weight) * (1 + (len(calls) > 3))


def raising(model, batch, generator, weight):
    raise KeyError("mask")


def flat(model, batch, generator, weight):
    return batch.images.flatten(1).mean(1)


def around(model, batch, generator, weight):
    return model.tokens(batch.images, batch.domain).mean(1) @ model.encoder.norm.weight


def writing(model, batch, generator, weight):
    with torch.no_grad():
        model.pretext.reference.mean.add_(1)
    return plain(model, batch, generator, weight)


class Mixing(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.layer = nn.Linear(width, outputs)

    def forward(self, token):
        return self.layer(token - token.mean(0))


class Normed(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 9, stride=9), nn.BatchNorm2d(width))

    def forward(self, images, domain):
        return self.body(images).flatten(2).transpose(1, 2)


class Narrow(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.body = nn.Conv2d(1, 8, 9, stride=9)

    def forward(self, images, domain):
        return self.body(images).flatten(2).transpose(1, 2)


class Records:
    def __init__(self, path, split, *, bad=None, drift=False):
        self.path, self.bad, self.drift, self.calls = path, bad, drift, 0

    def __len__(self):
        return 12

    def __getitem__(self, row):
        self.calls += self.drift
        if row == self.bad:
            raise OSError("private text")
        image = torch.full((20, 20), float(row + self.calls)).numpy()
        image[0] = 0
        return image, {"labels": row % 2}, f"p{row // 2}"


def median(changes, weights):
    return {name: sorted(own[name] for own in changes.values())[1] for name in ("a",)}


def short(changes, weights):
    return {"a": 0.0}
"""
TOP = "kit_of_tests"


def named(name: str) -> str:
    return f"{TOP}:{name}"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write a module on the import path."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / f"{TOP}.py").write_text(KIT)
    sys.path.insert(0, str(folder))
    yield folder / f"{TOP}.py"
    sys.path.remove(str(folder))


def schedule_with(name: str, digest: str | None = None, **settings: object) -> Schedule:
    phase = Phase(name="own", rounds=1, objectives={named(name): 1.0}, expected_batch_size=16)
    sources = {named(name): digest or code.source_hash(named(name))}
    return Schedule(phases=(phase,), spare_rounds=0, extensions=sources, **settings)  # type: ignore[arg-type]


REFUSED = {
    "scalar": r"returns one loss for each example, \(4,\); got \(\)",
    "averaged": "lets records see each other",
    "ranked": "lets records see each other",
    "divided": "depends on the size of the batch",
    "drawn": "gives other losses in a second call",
    "counted": "lets records see each other|remembers earlier batches",
    "writing": "changes the model's tensors",
    "raising": "does not run on 4 random images .KeyError: 'mask'",
    "flat": "would train nothing",
    "around": "cannot be clipped per example: encoder.norm.weight is used outside its layer",
    "absent": "has no such name",
    "calls": "holds no function or class of that name",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_sees_more_than_its_record_is_refused(name: str, kit: Path):
    """Each way in which a loss can break per-example clipping has a sentence of its own."""
    with pytest.raises(EngineError, match=REFUSED[name]):
        check_objective(named(name), site_model(CONFIG, [OPACITY]), CHEST, [OPACITY])


@pytest.mark.parametrize("name", ["good", "plain"])
def test_a_loss_of_single_records_passes(name: str, kit: Path):
    """With and without random draws."""
    check_objective(named(name), site_model(CONFIG, [OPACITY]), CHEST, [OPACITY])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"network": named("Normed")}, "BatchNorm2d. normalises with statistics of the whole"),
        ({"network": named("Narrow")}, r"a network returns tokens \(4, N, 64\), got \(4, 9, 8\)"),
        ({}, r"output.heads.chest .Mixing. lets the rows of a batch see each other"),
    ],
)
def test_a_network_or_head_that_mixes_records_is_refused(
    changed: dict[str, str], said: str, kit: Path
):
    """It is run on random images before anything is charged."""
    task = OPACITY if changed else OPACITY.model_copy(update={"head": named("Mixing")})
    config = CONFIG.model_copy(update=changed)
    with pytest.raises(EngineError, match=said):
        check_network(site_model(config, [task]), CHEST, [task], {"supervised": 1.0})


# What a hospital lets run.


def guard_of(site: Site, folder: Path, allowed: tuple[str, ...], **rules: object) -> Guard:
    policy = OPEN.model_copy(update={"extensions": allowed, **rules})
    return Guard(site, folder, lambda *_: SecureNoise(), policy=policy)


def refusal(answer: object) -> str:
    assert isinstance(answer, Refusal), answer
    assert answer.code == "policy"
    return answer.reason


def test_a_hospital_loads_nothing_that_only_the_server_names(
    site: Site, tmp_path: Path, kit: Path, monkeypatch: pytest.MonkeyPatch
):
    """A module that the policy does not list is neither imported nor looked for."""
    looked: list[str] = []
    monkeypatch.setattr("client.policy.source_hash", lambda name: looked.append(name))
    wanted = admit(schedule_with("good", "0" * 64))
    for guard in (
        guard_of(site, tmp_path, ()),
        guard_of(site, tmp_path, (named("plain"),)),
        Guard(site, tmp_path, lambda *_: SecureNoise()),  # no policy.yaml at all
    ):
        assert f"executes {named('good')}" in refusal(guard.handle(wanted))
    assert looked == []
    assert not [row for row in ledger_rows(tmp_path) if row["kind"] == "reservation"]


def test_a_network_that_the_schedule_does_not_name_is_refused(
    site: Site, tmp_path: Path, schedule: Schedule, kit: Path
):
    """A model's settings come beside the schedule, which holds the hashes."""
    config = CONFIG.model_copy(update={"network": named("Narrow")})
    answer = guard_of(site, tmp_path, (named("Narrow"),)).handle(admit(schedule, config=config))
    assert "does not name the sources" in refusal(answer)


def test_other_sources_are_refused(site: Site, tmp_path: Path, kit: Path):
    """Name and policy agree, and the hash of the schedule is that of other code."""
    guard = guard_of(site, tmp_path, (named("good"),))
    assert "other sources of the extension" in refusal(
        guard.handle(admit(schedule_with("good", "0" * 64)))
    )


def test_a_bad_loss_is_refused_before_the_budget_is_reserved(site: Site, tmp_path: Path, kit: Path):
    """The reason goes to the server, and nothing is on the ledger but the refusal."""
    guard = guard_of(site, tmp_path, (named("averaged"),))
    said = refusal(guard.handle(admit(schedule_with("averaged"))))
    assert "lets records see each other" in said
    assert [row["kind"] for row in ledger_rows(tmp_path)] == ["cohort", "refusal"]


def test_a_head_that_mixes_records_is_refused_before_the_budget_is_reserved(
    site: Site, schedule: Schedule, tmp_path: Path, kit: Path
):
    """The hospital's own code is checked like the consortium's."""
    task = OPACITY.model_copy(update={"head": named("Mixing")})
    guard = guard_of(site.model_copy(update={"tasks": (task,)}), tmp_path, ())
    assert "lets the rows of a batch see each other" in refusal(guard.handle(admit(schedule)))
    assert [row["kind"] for row in ledger_rows(tmp_path)] == ["cohort", "refusal"]


def test_an_allowed_extension_is_admitted_and_trained_and_may_be_withdrawn(
    site: Site, tmp_path: Path, kit: Path
):
    """Its hash is part of the reservation. A hospital that changes its mind trains no more."""
    schedule = schedule_with("good")
    guard = guard_of(site, tmp_path, (named("good"),))
    answer = guard.handle(admit(schedule))
    assert isinstance(answer, AdmitAnswer), answer
    (row,) = [row for row in ledger_rows(tmp_path) if row["kind"] == "reservation"]
    assert code.source_hash(named("good")) in str(row["schedule"])
    changed = guard_of(site, tmp_path, ())
    assert "executes" in refusal(changed.handle(train(schedule)))
    trained = guard.handle(train(schedule))
    assert not isinstance(trained, Refusal), trained


def test_who_approves_reads_name_and_hash(site: Site, kit: Path):
    """The summary says that the code is not FedMedformer's."""
    schedule = schedule_with("good")
    plan = solve(schedule, site.privacy, site.tasks)
    text = " ".join(summary(site, schedule, CONFIG, plan, 0, 8).split())
    assert f"executes {named('good')}, code that is no part of FedMedformer" in text
    assert code.source_hash(named("good")) in text.replace(" ", "")


def test_the_guard_takes_installed_extensions_only(kit: Path, tmp_path: Path):
    """A folder on the import path is not the guard's environment; code that others can write is
    not the hospital's."""
    with pytest.raises(ExposedError, match="outside of"):
        installed_extensions([named("good")])
    kit.chmod(0o666)
    with pytest.raises(ExposedError, match="others can write there"):
        installed_extensions([named("good")], prefix=kit.parent)
    kit.chmod(0o644)
    with pytest.raises(ConfigError, match="there is no module 'not_there' here: pip install"):
        installed_extensions(["not_there:x"])


# Names and hashes.


def test_both_sides_read_the_same_names():
    """The protocol has a pattern of its own, because it imports nothing of the model."""
    assert reference.PATTERN == extensions.PATTERN
    for wrong in ("kit.:x", "kit:x:y", "../kit:x", "kit.losses", ":x", "kit:x y", "a" * 200 + ":b"):
        with pytest.raises(ValueError, match=r"names no extension|Input should be"):
            Phase(name="p", rounds=1, objectives={wrong: 1.0})
        with pytest.raises(ValueError, match="names no extension"):
            Task(name="t", kind="binary-class", classes=2, head=wrong)


def test_a_schedule_without_extensions_has_the_text_of_earlier_versions(schedule: Schedule):
    """Ledgers and reports hold hashes of it."""
    assert "extensions" not in schedule.canonical()


def test_the_hash_is_that_of_the_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A helper module, or a table of weights, is part of it; what Python compiles is not."""
    package = tmp_path / "whole_kit"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "losses.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def now() -> str:
        code.source_hash.cache_clear()
        return code.source_hash("whole_kit.losses:x")

    first = now()
    (package / "__pycache__" / "losses.pyc").write_text("compiled")
    assert now() == first
    (package / "helper.py").write_text("y = 1\n")
    second = now()
    assert second != first
    (package / "helper.py").rename(package / "help.py")  # the same content, in the same order
    assert now() != second
    with pytest.raises(FederationError, match="its sources are not those with which the run"):
        check_sources([("whole_kit.losses:x", first)])
    (tmp_path / "spaces").mkdir()
    with pytest.raises(ConfigError, match="so that its sources cannot be hashed"):
        code.source_hash("spaces.losses:x")


# The hospital's own data.


def own_site(site: Site, unit: str = "image", **options: object) -> Site:
    privacy = Privacy(epsilon=8, n_public=12, unit=unit)  # type: ignore[arg-type]
    data = {"source": "extension", "name": named("Records"), "options": options}
    return Site.model_validate({**site.model_dump(), "privacy": privacy, "data": data})


def test_a_record_that_raises_is_invalid_and_moves_no_other(site: Site, kit: Path):
    """Its text stays at the site, and it is drawn like the others."""
    found, whole = read(own_site(site, bad=3), "train"), read(own_site(site), "train")
    valid = torch.tensor([row != 3 for row in range(12)])
    usable = found.stacks[0].valid if len(found.stacks) == 1 else found.valid
    assert int((~usable).sum()) == 1
    assert len(found) == len(whole) == 12
    assert "private text" in found.faults[0]
    kept = torch.cat([s.images[s.valid].flatten(1) for s in found.stacks if s.valid.any()])
    assert torch.equal(kept, whole.stacks[0].images[valid].flatten(1))


def test_withdrawn_rows_and_patients_are_left_out(site: Site, kit: Path, tmp_path: Path):
    """By SPLIT:ROW, or by the patient that the data set names."""
    (tmp_path / "withdrawn.txt").write_text("train:0\np3\n")
    own = own_site(site, "patient").model_copy(update={"withdrawn": tmp_path / "withdrawn.txt"})
    forget()
    records = load(own, "train")
    assert len(records) == 9
    assert records.withdrawn == ("train:0", "p3")
    assert set(records.patients) == {"p0", "p1", "p2", "p4", "p5"}
    assert len(hashes(own)) == 36


def test_a_data_set_that_changes_while_it_is_read_is_reported(site: Site, kit: Path):
    """`site check` and `simulate` say so before anything is trained."""
    assert doubts.problems(own_site(site)) == []
    assert (
        "is another record when it is read again" in doubts.problems(own_site(site, drift=True))[0]
    )


# The coordinator's rule.


def test_a_rule_gets_changes_and_its_answer_is_checked(kit: Path):
    """The median of three sites, computed by hand; a wrong shape stops the run with its name."""
    shared = {"a": np.ones(2, np.float32), "b": np.ones(1, np.float32)}
    updates = {n: {"a": np.full(2, v, np.float32)} for n, v in (("x", 9), ("y", 2), ("z", 3))}
    weights = dict.fromkeys("xyz", 1.0)
    with pytest.raises(FederationError, match="fails with ValueError"):
        moved_by(named("median"), shared, updates, weights)
    ones = {n: {"a": own["a"][:1]} for n, own in updates.items()}
    moved = moved_by(named("median"), {"a": shared["a"][:1]}, ones, weights)
    assert (moved["a"][0].tolist(), moved["a"][1]) == ([2.0], 3)
    with pytest.raises(
        FederationError, match=r"its change of a must be finite and of shape \(2,\)"
    ):
        moved_by(named("short"), shared, updates, weights)


def test_no_rule_for_masked_answers(kit: Path):
    """The server sees a sum, of which there is no median."""
    phase = Phase(name="p", rounds=1, objectives={"supervised": 1.0})
    schedule = Schedule(phases=(phase,), spare_rounds=0, aggregation={"secure": True})  # type: ignore[arg-type]
    sites = tuple(PublicSite(name=n, domain=CHEST) for n in ("a", "b", "c"))
    given = {
        "name": "n",
        "model": CONFIG,
        "schedule": schedule,
        "pretraining": None,
        "sites": sites,
    }
    Federation(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="combines the answers of single sites"):
        Federation(**given, server_rule=named("median"))  # type: ignore[arg-type]


def test_a_model_file_does_not_choose_what_is_imported(kit: Path, tmp_path: Path):
    """The caller names the code that a file may load."""
    task = OPACITY.model_copy(update={"head": named("Mixing")})
    card = medformer.ModelCard(name="m", dp=medformer.Promise(kind="public"))
    file = tmp_path / "m.safetensors"
    medformer.save(site_model(CONFIG, [task]), file, card)
    with pytest.raises(ModelFileError, match=f"is a model with {named('Mixing')}, code that is no"):
        medformer.load(file)
    assert medformer.load(file, extensions=[named("Mixing")]).tasks["chest"].head


def test_policy_and_site_list_built_in_losses_only(site: Site):
    """Losses from outside have one list, `extensions`."""
    for model in (Policy, Site):
        values = (OPEN if model is Policy else site).model_dump()
        with pytest.raises(ValueError, match="Input should be 'inpainting'"):
            model.model_validate({**values, "objectives": ["kit:x"]})
