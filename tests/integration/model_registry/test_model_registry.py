"""The registry brings the world to what the log says, and the log to what the evidence says."""

import json
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date

from driftline.models.lifecycle import State
from driftline.models.model_event import Kind
from driftline.models.standing import active_version
from driftline.models.tracking import Tracking, tracking_uri
from driftline.project import Project, Promotion
from driftline.runtime.health import Health
from services.model_registry.assembly import run_model_registry
from services.model_registry.settings import ModelRegistrySettings
from tests.integration.model_registry.market_life import MODEL, Life, Prepared, running

UNTIL = date(2024, 4, 10)


def registry(life: Life, project: Project | None = None) -> AbstractContextManager[Health]:
    settings = life.settings(ModelRegistrySettings, "model_registry-0")

    def run(health: Health, stop: threading.Event) -> None:
        run_model_registry(settings, project or life.project, health=health, stop=stop)

    return running(run, "model_registry")


def by_approval(project: Project) -> Project:
    model = project.models[MODEL]
    asking = replace(model, promotion=replace(model.promotion, by=Promotion.APPROVAL))
    return replace(project, models={**project.models, MODEL: asking})


def test_a_challenger_that_proves_better_is_promoted_once_and_can_be_rolled_back(
    life: Life, prepared: Prepared
) -> None:
    challenger = prepared.facts[0].version
    tracking = Tracking(tracking_uri(life.state), life.state / "mlflow", life.project.name)
    for version in (prepared.champion, challenger):
        tracking.register(MODEL, version or "", life.models, None)
    with registry(life):
        life.wait(lambda found: found.champion == prepared.champion)
        life.event(*prepared.facts, *prepared.facts)  # delivered twice
        life.wait(lambda found: found.state_of(challenger or "") is State.CHALLENGER)
        life.outcomes(UNTIL, date(2024, 4, 17))
        assert life.history().champion == prepared.champion  # seven days, of which not all are complete
        life.outcomes(date(2024, 4, 17), date(2024, 4, 25))
        promoted = life.wait(
            lambda found: found.champion == challenger and active_version(life.models, MODEL) == challenger
        )
    (event,) = [one for one in life.log() if one.kind is Kind.PROMOTED and one.version == challenger]
    evidence = json.loads(event.evidence)
    assert evidence["difference"]["days"] == 7
    assert evidence["difference"]["outcomes"] == 420
    assert event.cause_id == prepared.facts[0].cause_id
    assert evidence["cause"] == prepared.facts[0].told["cause"]
    assert promoted.ignored == ()
    assert tracking.champion(MODEL) == challenger

    before = len(life.log())
    with registry(life) as health:  # a restart decides nothing anew
        command = life.command(Kind.ROLL_BACK)
        life.command(Kind.APPROVE)  # nothing waits for it
        life.command(Kind.PROMOTE, "unheard")
        back = life.wait(
            lambda found: (
                found.champion == prepared.champion
                and active_version(life.models, MODEL) == prepared.champion
            )
        )
        assert health.last_error
    assert back.state_of(challenger or "") is State.ROLLED_BACK
    after = life.log()[before:]
    assert [one.kind for one in after if not one.kind.is_command] == [Kind.ROLLED_BACK]
    assert next(one for one in after if one.kind is Kind.ROLLED_BACK).cause_id == command.event_id
    assert tracking.champion(MODEL) == prepared.champion


def test_with_approval_a_person_has_the_last_word(life: Life, prepared: Prepared) -> None:
    challenger = prepared.facts[0].version or ""
    with registry(life, by_approval(life.project)):
        life.wait(lambda found: found.champion == prepared.champion)
        life.event(*prepared.facts)
        life.outcomes(UNTIL, date(2024, 4, 25))
        life.wait(lambda found: found.pending == challenger)
        assert active_version(life.models, MODEL) == prepared.champion
        life.command(Kind.APPROVE)
        life.wait(
            lambda found: found.champion == challenger and active_version(life.models, MODEL) == challenger
        )


def test_commands_given_while_it_was_away_are_answered_by_the_history_before_them(
    life: Life, prepared: Prepared
) -> None:
    challenger = prepared.facts[0].version or ""
    with registry(life):
        life.wait(lambda found: found.champion == prepared.champion)
    life.command(Kind.APPROVE, challenger)  # nothing waits yet: refused, also later
    life.event(*prepared.facts)
    life.command(Kind.ROLL_BACK)  # there is no former champion yet: refused
    life.command(Kind.PROMOTE, challenger)
    life.command(Kind.ROLL_BACK)  # after the promotion there is
    life.command(Kind.ROLL_BACK)  # and then there is none any more
    with registry(life):
        found = life.wait(lambda found: found.state_of(challenger) is State.ROLLED_BACK)
        life.wait(lambda _: active_version(life.models, MODEL) == prepared.champion)
    assert [one.kind for one in found.events if one.kind is Kind.ROLLED_BACK] == [Kind.ROLLED_BACK]
    assert [reign.version for reign in found.reigns] == [prepared.champion, challenger, prepared.champion]
    assert found.ignored == ()


def test_what_is_no_model_event_goes_aside(life: Life, prepared: Prepared) -> None:
    with registry(life):
        life.wait(lambda found: found.champion == prepared.champion)
        topic = life.topics.stream("model-events")
        life.producer.produce(topic, b"nonsense", MODEL)
        life.producer.flush(20)
        life.event(*prepared.facts)
        life.wait(lambda found: found.challenger is not None)
        life.command(Kind.REJECT, prepared.facts[0].version)
        life.wait(lambda found: found.state_of(prepared.facts[0].version or "") is State.REJECTED)
    assert life.dead_letters() == 1
