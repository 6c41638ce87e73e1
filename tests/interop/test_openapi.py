"""schemathesis makes requests of the server's OpenAPI document: `make fuzz-api` in short."""

from __future__ import annotations

from fuzz_api import fuzz, server_errors


def test_every_route_answers_as_its_document_says() -> None:
    record = fuzz(4, phases="fuzzing")
    assert record["passed"], record["said"]
    assert server_errors(record) == 0
    paths = {path for path, counts in record["statuses"].items() if "200" in counts}
    assert {"/v1/chat/completions", "/v1/responses", "/api/chat", "/tokenize", "other"} <= paths
