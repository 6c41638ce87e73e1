"""The chat page's files: whole, tagged, and with headers that let nothing else run."""

from __future__ import annotations

import re

import pytest
from served import running

from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve import pages


@pytest.fixture(scope="module")
def served():
    with Model.load(default_model()) as model, running(model, api_key="k") as server:
        yield server


def get(served, path, *headers):
    """Status, headers and body."""
    lines = ["host: localhost", "connection: close", *headers]
    with served.connect() as sock:
        sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body


def test_the_page_names_no_file_that_is_not_served_and_every_file_is_there(served):
    status, headers, page = get(served, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = set(re.findall(rb'(?:src|href)="(/[^"]*)"', page)) - {b"/"}
    assert named <= {f"/static/{name}".encode() for name in pages.FILES}
    for name in pages.FILES:
        status, headers, body = get(served, f"/static/{name}")
        assert (status, headers["content-type"]) == (200, pages.FILES[name])
        assert body
        for imported in re.findall(rb'from "\./([^"]+)"', body):
            assert imported.decode() in pages.FILES


def test_nothing_but_its_own_files_may_run(served):
    for path in ("/", "/static/app.js", "/static/icon.svg"):
        headers = get(served, path)[1]
        rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert rules["default-src"] == rules["base-uri"] == "'none'"
        assert rules["frame-ancestors"] == rules["form-action"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_file_that_is_known_is_not_sent_again(served):
    headers = get(served, "/static/app.js")[1]
    assert headers["cache-control"] == "no-cache"
    status, _, body = get(served, "/static/app.js", f"if-none-match: {headers['etag']}")
    assert (status, body) == (304, b"")
    assert get(served, "/static/app.js", 'if-none-match: "old"')[0] == 200


@pytest.mark.parametrize("name", ["none.js", "..%2fpages.py", "..%2f..%2fapp.py", "%00", ""])
def test_no_other_file_is_served(served, name):
    assert get(served, f"/static/{name}")[0] == 404
