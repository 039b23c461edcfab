"""The OpenAPI document against the server: whatever it allows, and a lot that it does not, never makes the server fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
import service_kit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs schemathesis")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
EXAMPLES = 25
QUICK: dict[str, Any] = {
    "max_examples": EXAMPLES,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "derandomize": True,
}


@pytest.fixture(scope="module")
def document(shared) -> Any:
    """The document as the server gives it."""
    return schemathesis.openapi.from_url(f"{shared.running.url}/v1/openapi.json")


def operations() -> list[tuple[str, str]]:
    """(method, path) of everything described, without a running server."""
    from svad_ray.service import avatars, calls, files
    from svad_ray.service.app import system

    return sorted(
        (method, route.path)
        for router in (avatars.router, files.router, calls.router, system)
        for route in router.routes
        if getattr(route, "include_in_schema", False)
        for method in route.methods
    )


def path_in_document(path: str) -> str:
    return path.replace(":path}", "}")


def make_real(case: Any, method: str, path: str, avatar_id: str) -> None:
    """Half of the requests speak of something that exists, so that more than the first check is reached."""
    if "avatar_id" in (case.path_parameters or {}) and method == "GET" and not path.endswith("events"):
        case.path_parameters["avatar_id"] = avatar_id
        if "name" in case.path_parameters:
            case.path_parameters["name"] = "avatar/avatar.json"
    if isinstance(case.body, dict) and path in ("/v1/render", "/v1/animate"):
        case.body["avatar"] = avatar_id
        case.body["size"] = 16 if path == "/v1/animate" else case.body.get("size", 16)
    if isinstance(case.body, dict) and "photo" in case.body:
        case.body = {"photo": service_kit.photo_png(), "consent": "yes", "options": case.body.get("options", "{}")}


@pytest.mark.parametrize(("method", "path"), operations())
def test_described_requests_never_break_the_server(document, shared, finished, method, path):
    """Valid and invalid requests made from the description; answers are described ones, of the described shape, and never 5xx."""
    operation = document[path_in_document(path)][method]
    made: list[int] = []

    @settings(**QUICK)
    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), real=st.booleans())
    def check(case: Any, real: bool) -> None:
        if real:
            make_real(case, method, path, finished["id"])
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {shared.token}"}
        answer = case.call(timeout=120)
        made.append(answer.status_code)
        assert answer.status_code < 500, (answer.status_code, answer.text)
        if answer.status_code >= 400:
            assert set(json.loads(answer.text)["error"]) == {"code", "found", "expected", "remedy"}

    check()
    assert set(made) - {401}, "every request was stopped at the door"


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
)
_names = st.sampled_from(
    [
        "avatar",
        "motion",
        "frame",
        "pose",
        "camera",
        "size",
        "format",
        "uri",
        "consent",
        "options",
        "webhook",
        "seed",
        "frames",
        "viewmat",
        "K",
        "yaw_deg",
        "body_pose",
    ]
)
_bodies = st.dictionaries(_names, _json | st.dictionaries(_names, _json, max_size=3), max_size=5)


@settings(**{**QUICK, "max_examples": 120})
@given(path=st.sampled_from(["/v1/avatars", "/v1/render", "/v1/animate"]), body=_bodies)
def test_bodies_of_any_kind(client, finished, path, body):
    """Known names with any values; the avatar is a real one where the body names any."""
    if "avatar" in body:
        body["avatar"] = finished["id"]
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text


@settings(**{**QUICK, "max_examples": 80})
@given(
    body=st.binary(max_size=300),
    boundary=st.sampled_from(["B", "", "B" * 80, 'B"', "é"]),
    prefix=st.sampled_from(
        [
            b"",
            b"--B\r\n",
            b'--B\r\nContent-Disposition: form-data; name="photo"; filename="x"\r\n\r\n',
            b'--B\r\nContent-Disposition: form-data; name="options"\r\n\r\n',
        ]
    ),
    end=st.sampled_from([b"", b"\r\n--B--\r\n", b"\r\n--B"]),
)
def test_uploads_of_any_kind(client, body, boundary, prefix, end):
    kind = b"multipart/form-data; boundary=" + boundary.encode("latin-1")
    for path in ("/v1/avatars", "/v1/restore"):
        answer = client.post(path, content=prefix + body + end, headers=[(b"Content-Type", kind)])
        assert 400 <= answer.status_code < 500, answer.text


@settings(**{**QUICK, "max_examples": 80})
@given(
    name=st.sampled_from(
        ["Range", "If-Range", "If-None-Match", "Last-Event-ID", "Idempotency-Key", "Authorization", "Accept", "Content-Length", "Content-Type"]
    ),
    value=st.binary(max_size=40),
)
def test_headers_of_any_kind(client, finished, name, value):
    import h11
    import httpx

    for path in (f"/v1/avatars/{finished['id']}/artefacts/avatar/avatar.json", f"/v1/avatars/{finished['id']}/events", "/v1/avatars"):
        try:
            answer = client.get(path, headers=[(name.encode(), value)])
        except (httpx.LocalProtocolError, httpx.RemoteProtocolError, httpx.ReadError, h11.LocalProtocolError):
            continue  # no header, or a length that the client itself sees is wrong: no request came of it
        assert answer.status_code < 500, answer.text
