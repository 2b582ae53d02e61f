"""What finds the answers of before, put together from the settings; part of the assembly."""

from collections.abc import Callable, Mapping
from typing import Any

from driftline.contracts.topics import Topics
from driftline.features.online import TIMEOUT_SECONDS
from driftline.features.store_connection import ReadConnection, StoreConnection
from driftline.project import Project
from driftline.runtime.redis_servers import names_cluster
from driftline.serving.claimed_reads import ReadsBesideClaims
from driftline.serving.claims import Claims
from driftline.serving.kept_answers import KeptAnswers
from driftline.serving.logged_answers import LoggedAnswers
from services.predictor.doubts import Doubts
from services.predictor.each_anew import EachAnew
from services.predictor.marks import Marks
from services.predictor.repeats import Repeats
from services.predictor.settings import PredictorSettings
from services.predictor.topic_repeats import TopicRepeats

#: Of the deadline, the part that the broker has to acknowledge: the caller hears "not logged" rather than nothing.
DELIVERY_SHARE = 0.8
#: After it nothing of a claim's process is on its way to the log any more.
_MARGIN_SECONDS = 1.0


def repeats_of(
    settings: PredictorSettings,
    project: Project,
    topics: Topics,
    schema_of: Callable[[int], Mapping[str, Any]],
) -> tuple[EachAnew, ReadConnection | None]:
    """Return what finds the answers of before over HTTP, and what its requests' features are read with."""
    if not settings.answer_seconds:
        if names_cluster(settings.redis_url):
            return EachAnew(), None
        return EachAnew(), StoreConnection(settings.redis_url, timeout_seconds=TIMEOUT_SECONDS)

    kept = KeptAnswers(project, schema_of)
    doubts = Doubts(
        _claims(settings, topics),
        LoggedAnswers(settings.kafka_config(), topics.predictions, kept.read),
        delivery_seconds=_on_its_way_seconds(settings),
    )
    own = _claims(settings, topics)
    reads = ReadsBesideClaims(own)
    return Repeats(own, reads, kept, Marks(_claims(settings, topics)), doubts), reads


def topic_repeats_of(
    settings: PredictorSettings,
    project: Project,
    topics: Topics,
    schema_of: Callable[[int], Mapping[str, Any]],
) -> TopicRepeats | None:
    """Return what drops the requests of the topic that were asked before; None where each is a new one."""
    if not settings.answer_seconds:
        return None
    return TopicRepeats(
        _claims(settings, topics),
        LoggedAnswers(settings.kafka_config(), topics.predictions, KeptAnswers(project, schema_of).read),
        delivery_seconds=_on_its_way_seconds(settings),
    )


def _claims(settings: PredictorSettings, topics: Topics) -> Claims:
    return Claims(
        settings.redis_url,
        prefix=topics.prefix,
        seconds=settings.answer_seconds,
        timeout_seconds=TIMEOUT_SECONDS,
    )


def _on_its_way_seconds(settings: PredictorSettings) -> float:
    return settings.deadline_seconds * DELIVERY_SHARE + _MARGIN_SECONDS
