"""policy.yaml: without it a site refuses, each rule refuses a run, and a person approves runs."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from client.commands.consent import summary
from client.guard import Guard
from client.ledger.ledger import Ledger
from client.node.joining import init
from client.policy import Policy, load_policy
from client.privacy.meaning import percent
from client.privacy.noise import SecureNoise
from client.privacy.plan import solve
from client.refusals import ClosedNow
from client.site import Privacy, Site
from client.state import Store
from medformer.common.rounding import rounded_up
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.sharing import is_concept
from server.protocol import Admit, AdmitAnswer, Answer, Refusal, Schedule, TrainAnswer
from simulations.cli import main
from tests.conftest import CONFIG, OPEN, admit, ledger_rows, train, write_site


def guarded(site: Site, folder: Path, policy: Policy | None) -> Guard:
    return Guard(site, folder, lambda *_: SecureNoise(), policy=policy)


def common(site: Site) -> ModelConfig:
    """Return a model with a concept layer for the site's kind of image."""
    return CONFIG.between([site.domain, site.domain])


def refused(answer: Answer, code: str = "policy") -> str:
    assert isinstance(answer, Refusal), answer
    assert answer.code == code, answer
    return answer.reason


def test_without_a_policy_a_deployed_site_allows_nothing(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """Its ledger holds only the registration of its budget and the refusal."""
    guard = guarded(site, tmp_path, None)
    assert "has no policy.yaml" in refused(guard.handle(admit(schedule)))
    assert {row["kind"] for row in ledger_rows(tmp_path)} == {"cohort", "refusal"}
    assert isinstance(guarded(site, tmp_path, OPEN).handle(admit(schedule)), AdmitAnswer)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objectives": ("inpainting",)}, "does not allow the objective supervised"),
        (
            {"max_epsilon_per_run": 5},
            "epsilon of the run, 7.*, is beyond .* policy \\(5, max_epsilon_per_run\\)",
        ),
        ({"min_noise_multiplier": 9}, "noise multiplier, .* is beyond"),
        ({"max_rounds": 3}, "number of rounds with spares, 4, is beyond"),
        ({"max_expected_share": 0.2}, "sample rate, 0.25, is beyond"),
        ({"accept_unit_image": False}, "protects patients, its site.yaml says unit: image"),
    ],
)
def test_each_rule_refuses_a_run_that_breaks_it(
    changes: dict[str, object], reason: str, site: Site, schedule: Schedule, tmp_path: Path
):
    """The run is refused before any record is read, and no budget is reserved."""
    guard = guarded(site, tmp_path, OPEN.model_copy(update=changes))
    said = refused(guard.handle(admit(schedule)))
    assert re.search(reason, said), said
    assert {row["kind"] for row in ledger_rows(tmp_path)} == {"cohort", "refusal"}


def test_a_site_may_refuse_to_train_its_answer_with_others(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """A run with a concept layer for the site's kind of image is refused before any budget is
    reserved; one without is not."""
    kept = guarded(site, tmp_path, OPEN.model_copy(update={"concepts": False}))
    said = refused(kept.handle(admit(schedule, config=common(site))))
    assert "`concepts: false`" in said
    assert "`concepts: own-heads`" in said
    assert {row["kind"] for row in ledger_rows(tmp_path)} == {"cohort", "refusal"}
    assert isinstance(kept.handle(admit(schedule)), AdmitAnswer)


def test_a_site_may_take_part_and_keep_its_answer_at_home(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """Its own heads are trained in place of the concept layer, of which it never sends a tensor."""
    heads = schedule.phases[0].model_copy(update={"name": "heads", "trains": "heads", "rounds": 1})
    both = schedule.model_copy(update={"phases": (heads, *schedule.phases)})
    guard = guarded(site, tmp_path, OPEN.model_copy(update={"concepts": "own-heads"}))
    assert isinstance(guard.handle(admit(both, config=common(site))), AdmitAnswer)
    first, second = [guard.handle(train(both, n, config=common(site))) for n in (1, 2)]
    assert isinstance(first, TrainAnswer)
    assert isinstance(second, TrainAnswer)
    assert first.tensors == {}
    assert "encoder.norm.weight" in second.tensors
    assert not any(map(is_concept, second.tensors))
    kept = Store(guard.folder, "run-1").get_state(2)
    assert kept is not None
    assert kept.parameters["output.heads.chest.weight"].any()
    assert kept.parameters["output.textures.chest.weight"].any()


def test_no_part_of_the_answer_leaves_after_the_hospital_has_changed_its_mind(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """The policy of the day counts, also in a run that was admitted under another one, and for an
    answer that was kept."""
    open_ = guarded(site, tmp_path, OPEN)
    assert isinstance(open_.handle(admit(schedule, config=common(site))), AdmitAnswer)
    request = train(schedule, 1, config=common(site))
    before = open_.handle(request)
    assert isinstance(before, TrainAnswer)
    assert any(map(is_concept, before.tensors))
    for choice in (False, "own-heads"):
        changed = guarded(site, tmp_path, OPEN.model_copy(update={"concepts": choice}))
        assert "output.concepts" in refused(changed.handle(request))
        after = changed.handle(train(schedule, 2, config=common(site)))
        assert isinstance(after, TrainAnswer), after
        assert not any(map(is_concept, after.tensors))


def test_who_says_yes_reads_what_a_shared_answer_means(site: Site, schedule: Schedule):
    """The screen says who could answer the question, and nothing of it in a run without."""
    plan = solve(schedule, site.privacy, site.tasks)

    def said(config: ModelConfig, *, sends: bool) -> str:
        text = summary(site, schedule, config, plan, 0.0, 20.0, sends_concepts=sends)
        assert max(map(len, text.splitlines())) <= 80
        return " ".join(text.split())

    shared = "coordinator and members can answer the question with the shared model"
    home = "This site sends no part of it"
    assert shared in said(common(site), sends=True)
    assert "nothing beyond the epsilon above" in said(common(site), sends=True)
    assert home in said(common(site), sends=False)
    assert shared not in said(common(site), sends=False)
    assert shared not in said(CONFIG, sends=True)
    assert home not in said(CONFIG, sends=False)


def test_the_draft_lets_each_hospital_choose(tmp_path: Path):
    """`site init` writes the key out, with its three values; the draft can be read as it is."""
    init(tmp_path / "north", "north")
    text = (tmp_path / "north" / "policy.yaml").read_text()
    for value in ("true", "own-heads", "false"):
        assert re.search(rf"#   {value} ", text)
    assert "\nconcepts: true\n" in text
    for value, choice in (("true", True), ("own-heads", "own-heads"), ("false", False)):
        (tmp_path / "policy.yaml").write_text(text.replace("concepts: true", f"concepts: {value}"))
        assert load_policy(tmp_path / "policy.yaml").concepts == choice


def test_a_run_waits_until_somebody_says_yes(
    site: Site, schedule: Schedule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A run is recorded once as waiting, shown in plain words, and admitted once it is approved."""
    state = tmp_path / "state"
    file = write_site(site, tmp_path)
    policy = OPEN.model_copy(update={"approval": "manual"})
    guard = guarded(site, state, policy)
    for _ in range(2):
        refused(guard.handle(admit(schedule)), "approval-pending")
    refused(guard.handle(train(schedule)), "bad-request")
    other = schedule.model_copy(update={"spare_rounds": 2})
    refused(guard.handle(admit(other)), "bad-request")

    command = ["site", "approve", str(file), str(state)]
    assert main(["site", "approve", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"site approve {tmp_path} run-1 --yes\n")
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"site approve {file} {state} run-1 --yes\n")
    (asked,) = [row for row in ledger_rows(state) if row["kind"] == "asked"]
    assert max(map(len, out.splitlines()[:-1])) <= 80  # the last line is a command
    text = " ".join(out.split())
    assert "run run-1" in text
    assert "3 rounds, plus up to 1 if rounds are lost" in text
    assert "supervised (3 rounds): learn this site's tasks from its labels." in text
    plan = solve(schedule, site.privacy)
    assert (asked["epsilon"], asked["delta"]) == (plan.epsilon, plan.delta)
    assert f"It costs epsilon {rounded_up(plan.epsilon)}" in text
    found = percent(dict(plan.detected)[0.01])
    assert found != "100.0 %"  # which is all that epsilon 8 says by itself
    assert f"can correctly identify at most {found} of the images that were used" in text
    assert main([*command, "run-9", "--yes"]) == 1
    assert "does not wait for approval; waiting: run-1" in capsys.readouterr().err
    assert main([*command, "run-1", "--yes"]) == 0
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    assert isinstance(guard.handle(train(schedule)), TrainAnswer)
    assert [row["kind"] for row in ledger_rows(state) if row["kind"] != "refusal"][:4] == [
        "cohort", "asked", "approval", "reservation",
    ]  # fmt: skip
    assert main(command) == 0
    assert "no run waits" in capsys.readouterr().out


def test_a_run_asked_for_under_another_version_hides_no_other(
    site: Site, schedule: Schedule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Its schedule has keys that this version does not know; nobody is asked to approve it."""
    state, file = tmp_path / "state", write_site(site, tmp_path)
    policy = OPEN.model_copy(update={"approval": "manual"})
    refused(guarded(site, state, policy).handle(admit(schedule)), "approval-pending")
    earlier = json.loads(schedule.canonical())
    earlier["phases"][0]["alone"] = False
    with Ledger.of(site, state) as ledger:
        ledger.approvals.ask("run-0", json.dumps(earlier), CONFIG.model_dump_json())
    assert main(["site", "approve", str(file), str(state)]) == 0
    older, newer = capsys.readouterr().out.split("run run-1\n")
    assert older.startswith("run run-0\nIt was asked for under another version")
    assert "--yes" not in older
    assert "run-1 --yes" in newer


def test_a_site_that_cannot_sign_reserves_nothing(site: Site, schedule: Schedule, tmp_path: Path):
    """Its answer would be worth nothing to the coordinator, and the budget is never handed back."""
    (tmp_path / "guard.key").write_text("damaged")
    reason = refused(guarded(site, tmp_path, OPEN).handle(admit(schedule)))
    assert "signing key is damaged or missing: restore guard.key" in reason
    assert "reservation" not in {row["kind"] for row in ledger_rows(tmp_path)}
    (tmp_path / "guard.key").unlink()
    assert isinstance(guarded(site, tmp_path, OPEN).handle(admit(schedule)), AdmitAnswer)
    # A new key would be another guard's for everybody who has seen the run's signatures.
    (tmp_path / "guard.key").unlink()
    refused(guarded(site, tmp_path, OPEN).handle(admit(schedule)))
    assert not (tmp_path / "guard.key").exists()


def test_a_person_can_say_no_and_the_coordinator_reads_why(
    site: Site, schedule: Schedule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Nothing is reserved, the run waits no more, and asking again gets the same answer."""
    state, file = tmp_path / "state", write_site(site, tmp_path)
    guard = guarded(site, state, OPEN.model_copy(update={"approval": "manual"}))
    refused(guard.handle(admit(schedule)), "approval-pending")
    command = ["site", "approve", str(file.parent), "run-1", "--no", "not this year"]
    assert main(command) == 0
    assert "refused: run-1" in capsys.readouterr().out
    assert main(command) == 1
    assert main([*command[:-2], "--yes"]) == 1
    assert "does not wait for approval" in capsys.readouterr().err
    for _ in range(2):
        answer = refused(guard.handle(admit(schedule)), "policy")
        assert "a person at this site has said no to the run: not this year" in answer
    assert "reservation" not in {row["kind"] for row in ledger_rows(state)}


def test_a_run_that_the_budget_does_not_cover_is_not_even_asked_for(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """A run beyond the budget is refused without asking a person."""
    privacy = Privacy(epsilon=8, n_public=64, epsilon_budget=8)
    policy = OPEN.model_copy(update={"approval": "manual"})
    small = site.model_copy(update={"privacy": privacy})
    assert isinstance(guarded(small, tmp_path, OPEN).handle(admit(schedule)), AdmitAnswer)
    asked = guarded(small, tmp_path, policy).handle(admit(schedule, "run-2"))
    refused(asked, "budget-exhausted")
    assert "asked" not in {row["kind"] for row in ledger_rows(tmp_path)}


def test_hours_may_pass_midnight():
    """A span includes its first minute, excludes its last one, and may pass midnight."""
    policy = OPEN.model_copy(update={"hours": ("20:00-06:00", "12:00-13:00")})
    for clock, open_ in (("20:00", True), ("23:59", True), ("05:59", True), ("06:00", False),
                         ("12:30", True), ("13:00", False)):  # fmt: skip
        now = datetime.fromisoformat(f"2026-01-01T{clock}")
        if open_:
            policy.check_time(now)
        else:
            with pytest.raises(ClosedNow, match="trains at 20:00-06:00, 12:00-13:00"):
                policy.check_time(now)


def test_out_of_hours_no_round_is_trained(site: Site, schedule: Schedule, tmp_path: Path):
    """The run is admitted; outside the hours its rounds are refused and no attempt is charged."""
    closed = OPEN.model_copy(update={"hours": (_closed_now(),)})
    guard = guarded(site, tmp_path, closed)
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    refused(guard.handle(train(schedule)), "closed-now")
    assert "attempt" not in {row["kind"] for row in ledger_rows(tmp_path)}


def _closed_now() -> str:
    hour = (datetime.now().hour + 12) % 24
    return f"{hour:02d}:00-{(hour + 1) % 24:02d}:00"


def test_a_policy_that_cannot_be_read_is_named(tmp_path: Path):
    """Unknown keys (with a suggestion), impossible hours and a missing file are named."""
    file = tmp_path / "policy.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(file)
    file.write_text("objectives: [supervised]\nmax_epsilon_per_rum: 8\n")
    with pytest.raises(ConfigError, match=r"Did you mean `max_epsilon_per_run`"):
        load_policy(file)
    file.write_text("objectives: [supervised]\nmax_epsilon_per_run: 8\nhours: ['25:00-26:00']\n")
    with pytest.raises(ConfigError, match="20:00-06:00"):
        load_policy(file)
    file.write_text("objectives: [supervised]\nmax_epsilon_per_run: 8\n")
    assert load_policy(file).approval == "manual"


def test_no_request_brings_a_policy():
    """No field of a request holds a policy."""
    assert not [f for f in Admit.__dataclass_fields__ if "policy" in f]


def test_who_says_yes_reads_that_a_copy_stays_at_the_site(site: Site, schedule: Schedule):
    """The approval screen says it for the phases that a site trains alone, and for no other."""
    phase = schedule.phases[0].model_copy(update={"name": "own", "shared_with": "nobody"})
    heads = schedule.phases[0].model_copy(update={"name": "heads", "trains": "heads"})
    last = phase.model_copy(update={"name": "own-heads", "trains": "own-heads"})
    both = schedule.model_copy(update={"phases": (heads, *schedule.phases, phase, last)})
    text = summary(site, both, CONFIG, solve(both, site.privacy, site.tasks), 0.0, 20.0)
    _, heads_said, all_said, own_said, last_said = re.split(r"\n  (?=\S)", text)[:5]
    assert "only this site's own heads" in " ".join(last_said.split())
    assert "and nothing is sent" in " ".join(last_said.split())
    assert heads_said.startswith("heads (3 rounds): train only the answering layers")
    assert "stays here: nothing is sent" in " ".join(own_said.split())
    assert "nothing is sent" not in f"{heads_said} {all_said}"


def test_who_says_yes_reads_with_whom_the_result_is_shared(site: Site, schedule: Schedule):
    """The approval screen names the sites of one kind of image where no other gets the result."""
    kind = schedule.phases[0].model_copy(update={"name": "kind", "shared_with": "kind"})
    both = schedule.model_copy(update={"phases": (*schedule.phases, kind)})
    text = summary(site, both, CONFIG, solve(both, site.privacy, site.tasks), 0.0, 20.0)
    _, all_said, kind_said = (" ".join(t.split()) for t in re.split(r"\n  (?=\S)", text)[:3])
    said = "shared with sites that have the same kind of image, and no other"
    assert said in kind_said
    assert said not in all_said
