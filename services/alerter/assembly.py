"""The alerter put together from its settings; the only place where its clients are made."""

import os
from contextlib import ExitStack

from driftline.alerts.causes import Causes
from driftline.alerts.delivery import Channel
from driftline.alerts.input_log import InputLog
from driftline.alerts.inputs import ALERT_INPUT
from driftline.alerts.loading import load_rules
from driftline.alerts.rules import AlertRules
from driftline.contracts.project_schemas import platform_schema
from driftline.contracts.registry import SchemaRegistry
from driftline.contracts.topics import ALERT_INPUTS, ALERTS, DRIFT_SIGNALS, MODEL_EVENTS
from driftline.control import ControlApp
from driftline.project import Project
from driftline.project.deprecations import deprecated_uses
from driftline.runtime.errors import ConfigurationError
from driftline.runtime.health import Health
from driftline.runtime.ids import new_id
from services.alerter.agents import AlertAgents
from services.alerter.courier import Courier
from services.alerter.service_watch import ServiceWatch, Sighting, configured, supervised
from services.alerter.settings import AlerterSettings

SERVICE = "alerter"
_BOOK = "book"
_LAST_DELIVERIES_SECONDS = 8.0

Channels = dict[tuple[str, int], Channel]


def rules_of(settings: AlerterSettings, project: Project) -> AlertRules:
    """Return the rules of the environment, else the project's, with their variables replaced.

    Raises ConfigurationError for mistakes in the file and for variables that are not set.
    """
    path = settings.rules or project.folder / "driftline.yaml"
    return load_rules(path).with_environment(os.environ)


def channels_of(rules: AlertRules, settings: AlerterSettings) -> Channels:
    """Return the channel of every URL, checked; ConfigurationError names the route, never the URL."""
    channels = {}
    for route in rules.routes:
        for number, url in enumerate(route.urls):
            channel = Channel(
                url=url.get_secret_value(), timeout_seconds=route.timeout_us / 1e6, folder=settings.state
            )
            try:
                channel.check()
            except ConfigurationError as error:
                raise ConfigurationError(f"alerts: route {route.name}, URL {number + 1}: {error}") from None
            channels[route.name, number] = channel
    return channels


def build_alerter(
    settings: AlerterSettings,
    project: Project,
    rules: AlertRules,
    channels: Channels,
    *,
    health: Health,
    closing: ExitStack,
) -> ControlApp:
    """Return the alerter's app; what it needs beside Faust is started, and ended by ``closing``."""
    topics = settings.topics(project)
    kafka = settings.kafka_config()
    registry = closing.enter_context(SchemaRegistry(settings.schema_registry_url))
    log = InputLog(kafka, topics, registry)
    closing.callback(log.close)
    causes = Causes(
        prefix=topics.prefix,
        team=project.owner,
        teams={name: model.owner for name, model in project.models.items()},
        rules=rules,
    )
    boot = new_id()
    courier = Courier(log.put, boot=boot, by=settings.instance)
    closing.callback(courier.close, _LAST_DELIVERIES_SECONDS)
    watch = ServiceWatch(
        lambda: _sightings(settings),
        causes,
        log.put,
        patience_seconds=settings.patience_seconds,
        poll_seconds=settings.poll_seconds,
        health=health,
    )
    closing.callback(watch.stop)
    agents = AlertAgents(
        inputs=topics.stream(ALERT_INPUTS),
        alerts=topics.stream(ALERTS),
        rules=rules,
        causes=causes,
        courier=courier,
        open_channel=lambda route, number: channels[route, number],
        boot=boot,
        deprecated=deprecated_uses(project),
    )
    app = ControlApp(settings, service=SERVICE, prefix=topics.prefix, health=health)
    app.on(topics.stream(DRIFT_SIGNALS), platform_schema("drift_signal"), agents.translate_signal)
    app.on(topics.stream(MODEL_EVENTS), platform_schema("model_event"), agents.translate_model_event)
    app.on(topics.stream(ALERT_INPUTS), ALERT_INPUT, agents.fold_input, table=_BOOK)
    app.tick("clock", settings.tick_seconds, agents.pass_time, table=_BOOK)
    app.sends(topics.stream(ALERT_INPUTS), ALERT_INPUT)
    app.sends(topics.stream(ALERTS), platform_schema("alert"))
    watch.start()
    return app


def _sightings(settings: AlerterSettings) -> list[Sighting]:
    return [*supervised(settings.state, own=settings.instance), *configured(settings.watch)]
