"""Whatever a client sends that the OpenAPI allows, or just not, the answer is one that the OpenAPI describes."""

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

_CHECKS = (
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_described(ingest: httpx.Client, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{ingest.base_url}/openapi.json")
    seen: set[int] = set()
    tested = []
    with requests.Session() as session:
        for found in schema.include(path_regex="^/v1/").get_all_operations():
            operation = found.ok()
            if mode is GenerationMode.NEGATIVE and operation.method == "get":
                continue  # nothing in it can be wrong

            @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_as_described(case: schemathesis.Case) -> None:
                seen.add(case.call_and_validate(session=session, checks=_CHECKS).status_code)

            answers_as_described()
            tested.append(operation.label)
    assert "POST /v1/events/payments" in tested
    assert (202 in seen) if mode is GenerationMode.POSITIVE else (422 in seen)


def test_every_operation_is_described_for_people(ingest: httpx.Client) -> None:
    document = ingest.get("/openapi.json").json()
    assert "Retry" in document["info"]["description"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            for status, response in operation["responses"].items():
                assert response["description"] not in {"", "Successful Response"}, (path, status)
    publish = document["paths"]["/v1/events/payments"]["post"]
    assert set(publish["responses"]) >= {"202", "400", "413", "422", "429", "503"}
    assert "Retry-After" in publish["responses"]["429"]["headers"]
    assert (
        publish["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]["customer"] == "ann"
    )
