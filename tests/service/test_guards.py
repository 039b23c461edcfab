"""Who may call, how much they may send, and what they are told when they may not."""

from __future__ import annotations

import hashlib
import logging
import socket
import struct
import threading
import time
import zlib
from typing import Any

import pytest
import service_kit
from service_helpers import ask

from svad_ray.errors import ConfigError
from svad_ray.photo import load_photo
from svad_ray.service.tokens import add_token, remove_tokens

NOBODY = "svad_" + "0" * 16 + "_" + "a" * 43
GUARDED = [
    ("GET", "/v1/avatars"),
    ("POST", "/v1/avatars"),
    ("GET", "/v1/avatars/{id}"),
    ("DELETE", "/v1/avatars/{id}"),
    ("POST", "/v1/avatars/{id}/cancel"),
    ("GET", "/v1/avatars/{id}/events"),
    ("GET", "/v1/avatars/{id}/artefacts"),
    ("GET", "/v1/avatars/{id}/artefacts/avatar/avatar.json"),
    ("POST", "/v1/restore"),
    ("POST", "/v1/animate"),
    ("POST", "/v1/render"),
    ("GET", "/v1/models"),
]
FREE = ["/v1/health", "/v1/ready", "/v1/openapi.json"]


def shape(answer: Any) -> dict[str, str]:
    """The error of an answer, its shape checked."""
    error = answer.json()["error"]
    assert set(error) == {"code", "found", "expected", "remedy"} and all(isinstance(text, str) for text in error.values())
    return error


def raw(url: str, head: str, *bodies: bytes, wait_s: float = 20.0) -> bytes:
    """What a server answers to bytes on the wire."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as wire:
        wire.sendall(head.replace("\n", "\r\n").encode())
        try:
            for body in bodies:
                wire.sendall(body)
        except OSError:
            pass
        return wire.recv(65536)


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("token", [None, NOBODY, "nonsense"])
def test_every_endpoint_wants_a_token(shared, finished, method, path, token):
    with shared.client(token) as client:
        answer = client.request(method, path.format(id=finished["id"]))
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert shape(answer)["code"] == "unauthorized"


def test_the_list_of_guarded_endpoints_is_complete(client):
    described = {(m.upper(), p) for p, item in client.get("/v1/openapi.json").json()["paths"].items() for m in item}
    assert {(m, p.replace("{id}", "{avatar_id}").replace("avatar/avatar.json", "{name}")) for m, p in GUARDED} == {
        (m, p) for m, p in described if p not in FREE
    }


@pytest.mark.parametrize("path", FREE)
def test_probes_need_no_token(shared, path):
    with shared.client(None) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), [entry for entry in GUARDED if "{id}" in entry[1]])
def test_another_ones_avatar_is_as_unknown_as_none(shared, finished, method, path):
    with shared.client(shared.other) as other:
        foreign = other.request(method, path.format(id=finished["id"]))
        nobody = other.request(method, path.format(id="0" * 32))
    assert foreign.status_code == nobody.status_code == 404
    assert foreign.json() == nobody.json()
    with shared.client(shared.other) as other:
        for call, body in (("render", {}), ("animate", {"size": 64})):
            assert other.post(f"/v1/{call}", json={"avatar": finished["id"], **body}).status_code == 404
        assert finished["id"] not in [one["id"] for one in other.get("/v1/avatars").json()["avatars"]]
        assert other.get("/v1/avatars", params={"before": finished["id"]}).json()["avatars"] == []
    with shared.client() as owner:
        assert owner.get(f"/v1/avatars/{finished['id']}").json()["state"] == "done"


def test_removed_token_stops_working_at_once(start, tmp_path):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start()
    with running.client(token) as client:
        assert client.get("/v1/avatars").status_code == 200
        remove_tokens(tmp_path / "tokens.json", "anna")
        assert client.get("/v1/avatars").status_code == 401


def test_tokens_are_off_by_name_only(start):
    with pytest.raises(ConfigError):
        start(tokens_file="")
    running = start(require_tokens=False, tokens_file="")
    with running.client() as client:
        assert client.get("/v1/avatars").json() == {"avatars": [], "next": None}


def test_requests_a_minute(start, tmp_path):
    slow, fast = add_token(tmp_path / "tokens.json", "slow", requests_per_minute=3), add_token(tmp_path / "tokens.json", "fast")
    running = start()
    with running.client(slow) as client:
        answers = [client.get("/v1/avatars") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20 and shape(answers[-1])["code"] == "busy"
    with running.client(fast) as client:
        assert client.get("/v1/avatars").status_code == 200


def test_open_avatars_at_once(start, tmp_path):
    """The quota holds also when the requests come together, and a place is free again once one ends."""
    token = add_token(tmp_path / "tokens.json", "anna", open_avatars=2)
    running, answers = start(), []
    with running.client(token) as client:

        def one(i: int) -> None:
            answers.append(ask(client, photo=service_kit.photo_png(i), key=f"k{i}", seed=service_kit.SLEEP + 60_000))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429, 429, 429]
        assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 429)
        taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        i = next(i for i in range(6) if ask(client, photo=service_kit.photo_png(i), key=f"k{i}", seed=service_kit.SLEEP + 60_000).status_code == 202)
        assert ask(client, photo=service_kit.photo_png(i), key=f"k{i}", seed=service_kit.SLEEP + 60_000).headers["Idempotent-Replayed"] == "true"
        client.post(f"/v1/avatars/{taken[0]}/cancel")
        third = ask(client, photo=service_kit.photo_png(9), seed=service_kit.SLEEP + 60_000)
        assert third.status_code == 202
        for avatar_id in (*taken, third.json()["id"]):
            client.delete(f"/v1/avatars/{avatar_id}")


def form(photo: bytes) -> tuple[bytes, str]:
    body = b'--B\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n' + photo + b"\r\n--B--\r\n"
    return body, "multipart/form-data; boundary=B"


def test_declared_oversize_is_refused_before_the_body_comes(shared, start, tmp_path):
    add = add_token(tmp_path / "tokens.json", "anna")
    running = start(max_upload_bytes=10_000)
    head = f"POST /v1/avatars HTTP/1.1\nHost: x\nAuthorization: Bearer {add}\nContent-Type: multipart/form-data; boundary=B\n"
    answer = raw(running.url, head + "Content-Length: 99999999\n\n")  # not one byte of the body is sent
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b" 413 " in raw(running.url, head.replace("multipart/form-data; boundary=B", "application/json") + "Content-Length: 9999999\n\n")
    huge = raw(running.url, head + f"Content-Length: {10**30}\n\n").split(b"\r\n")[0]
    assert b" 413 " in huge or b" 400 " in huge


def test_undeclared_oversize_is_cut_off_while_it_comes(start, tmp_path):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start(max_upload_bytes=10_000)
    sent = 0

    def endless(kind: bytes) -> Any:
        nonlocal sent
        yield kind
        for _ in range(2000):
            sent += 65536
            yield b"x" * 65536

    start_of_photo = b'--B\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    start_of_field = b'--B\r\nContent-Disposition: form-data; name="consent"\r\n\r\n'
    for kind, begin in (
        ("multipart/form-data; boundary=B", start_of_photo),
        ("multipart/form-data; boundary=B", start_of_field),
        ("application/json", b"["),
    ):
        sent = 0
        with running.client(token) as client:
            try:
                answer = client.post("/v1/avatars", content=endless(begin), headers={"Content-Type": kind})
                assert answer.status_code in (400, 413) and shape(answer)["code"] in ("too_large", "bad_request")
            except Exception as error:  # the server may close while the client still sends
                assert type(error).__name__ in ("WriteError", "ReadError", "RemoteProtocolError")
        assert sent < 60e6
    photo_over = b"\x89PNG" + b"x" * 10_000
    body, kind = form(photo_over)
    with running.client(token) as client:
        assert client.post("/v1/avatars", content=iter([body]), headers={"Content-Type": kind}).status_code == 413


def test_a_body_that_drips_ends(shared, monkeypatch, start, tmp_path):
    from svad_ray.service import middleware

    monkeypatch.setattr(middleware, "BODY_TIMEOUT_S", 0.3)
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start()
    head = f"POST /v1/avatars HTTP/1.1\nHost: x\nAuthorization: Bearer {token}\nContent-Type: application/json\nContent-Length: 100\n\n"
    began = time.monotonic()
    assert b" 408 " in raw(running.url, head, b"{").split(b"\r\n")[0]
    assert time.monotonic() - began < 5


def png_of(width: int, height: int) -> bytes:
    """A valid PNG of one colour whose pixels were never in memory: 8-bit grey, rows compressed as they come."""
    packer, row, parts = zlib.compressobj(9), b"\0" * (width + 1), []
    for _ in range(height):
        parts.append(packer.compress(row))
    data = b"".join([*parts, packer.flush()])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_pixel_bomb_is_refused_by_its_header(client):
    bomb = png_of(12_000, 12_000)
    assert len(bomb) < 1_000_000
    for call in (lambda: ask(client, photo=bomb), lambda: client.post("/v1/restore", files={"photo": ("a.png", bomb)})):
        began = time.monotonic()
        answer = call()
        assert answer.status_code == 422 and "million pixels" in shape(answer)["found"]
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "photo", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, service_kit.photo_png()[:-2000], b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_photo(client, photo):
    answer = client.post("/v1/avatars", files={"photo": ("a.png", photo)}, data={"consent": "yes"})
    assert answer.status_code == 422 and shape(answer)["remedy"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b"x"}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=B"}}, 400),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 422),
        ({"content": b'"\\ud800"', "headers": {"Content-Type": "application/json"}}, 422),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 422),
        ({"json": {"uri": "https://x.example/a", "consent": "y", "more": 1}}, 422),
        ({"content": b'{"uri": "https://x.example/a", "consent": "\\ud800"}', "headers": {"Content-Type": "application/json"}}, 422),
        ({"json": {"uri": "https://x.example/a", "consent": "yes"}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "  "}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "options": "{"}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "options": '{"body": "/etc/passwd"}'}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "options": '{"motion": "/etc/passwd"}'}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "options": '{"gaussians": 900000}'}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "options": '{"frames": 1e400}'}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "other": "1"}}, 422),
        ({"files": {"other": ("a", service_kit.photo_png())}, "data": {"consent": "yes"}}, 422),
        ({"files": [("photo", ("a", b"1")), ("photo", ("b", b"2"))], "data": {"consent": "yes"}}, 422),
        ({"files": [("photo", ("a", service_kit.photo_png()))] * 2, "data": {"consent": "yes"}}, 422),
        ({"files": [("photo", (f"{k}", service_kit.photo_png(k))) for k in range(9)], "data": {"consent": "yes"}}, 422),
        ({"files": [("photo", (f"{k}", service_kit.photo_png(k))) for k in range(2)], "data": {"consent": "yes", "edit": "a red coat"}}, 422),
        ({"json": {"photos": [], "consent": "yes"}}, 422),
        ({"json": {"photos": ["https://x.example/a"], "uri": "https://x.example/a", "consent": "yes"}}, 422),
        ({"json": {"photos": ["https://x.example/a"] * 9, "consent": "yes"}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes"}, "headers": {"Idempotency-Key": "a b"}}, 422),
        ({"files": {"photo": ("a", service_kit.photo_png())}, "data": {"consent": "yes", "webhook": "https://x.example/"}}, 422),
    ],
)
def test_bodies_that_cannot_be_used(client, sent, status):
    answer = client.post("/v1/avatars", **sent)
    assert answer.status_code == status, answer.text
    assert shape(answer)["found"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2/x", 404), ("GET", "/", 404), ("PUT", "/v1/avatars", 405), ("GET", "/v1/avatars/..%2f..%2fx", 404)]
)
def test_unknown_paths_and_methods_have_the_same_shape(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    shape(answer)


def test_photo_by_address(start, tmp_path, web):
    token, name = add_token(tmp_path / "tokens.json", "anna"), f"photos.test:{web.port}"
    web.answers["/anna.png"] = (200, {}, service_kit.photo_png())
    web.answers["/away"] = (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b"")
    web.answers["/big"] = (200, {}, b"x" * 200_000)
    options = {"resolver": lambda host, port: ["127.0.0.1"]}
    running = start(uri_hosts=(name, "inside.test"), uri_schemes=("http", "https"), private_hosts=(name,), max_upload_bytes=150_000, options=options)
    with running.client(token) as client:

        def by(uri: str) -> Any:
            return client.post("/v1/avatars", json={"uri": uri, "consent": "yes", "options": {"seed": 3}})

        for uri in (
            f"http://{name}/away",
            "file:///etc/passwd",
            "http://169.254.169.254/x",
            "http://localhost/x",
            "https://inside.test/x",
            f"ftp://{name}/x",
        ):
            refused = by(uri)
            assert refused.status_code == 422 and shape(refused)["code"] == "address_refused", uri
        for uri in (f"http://{name}/big", f"http://{name}/missing"):
            assert shape(by(uri))["code"] == "address_failed"
        made = by(f"http://{name}/anna.png")
        assert made.status_code == 202 and made.json()["photo_sha256"] == hashlib.sha256(service_kit.photo_png()).hexdigest()
        request = running.book.subject_request(made.json()["id"])
        assert load_photo(request.uri).sha256 == request.sha256
    assert "authorization" not in {header.lower() for _, _, headers, _ in web.asked for header in headers}


class Broken:
    """An engine whose every part fails in its own way."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def wake(self, avatar_id: str) -> None: ...
    async def stop(self, avatar_id: str) -> None:
        raise RuntimeError("disk /dev/sda1 on fire, token hunter2")

    async def restore(self, photo: Any) -> Any:
        from svad_ray.service.engine import Busy

        raise Busy.for_seconds(7.2)

    async def render(self, avatar_id: str, view: Any) -> Any:
        raise AssertionError("never reached")

    def animate(self, avatar_id: str, motion: str, size: int) -> Any:
        raise AssertionError("never reached")

    async def models(self) -> Any:
        raise KeyError("/root/.secret")

    async def ready(self) -> dict[str, bool]:
        return {"workers": False}


def test_unexpected_faults_tell_an_id_and_nothing_else(start, tmp_path, caplog):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start(engine=Broken())
    with running.client(token) as client, caplog.at_level(logging.DEBUG):
        answer = client.get("/v1/models")
        assert answer.status_code == 500 and "/root" not in answer.text and "KeyError" not in answer.text
        incident = shape(answer)["found"].rsplit(" ", 1)[-1]
        assert any(incident in record.getMessage() for record in caplog.records)
        made = ask(client)
        gone = client.delete(f"/v1/avatars/{made.json()['id']}")
        assert gone.status_code == 500 and "hunter2" not in gone.text and "fire" not in gone.text
        busy = client.post("/v1/restore", files={"photo": ("a.png", service_kit.photo_png())})
        assert busy.status_code == 429 and busy.headers["Retry-After"] == "8"
        ready = client.get("/v1/ready")
        assert ready.status_code == 503 and ready.json() == {"ready": False, "parts": {"store": True, "workers": False}}


def test_store_that_cannot_be_written_is_503_without_its_path(start, tmp_path):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start()
    (tmp_path / "store").mkdir(exist_ok=True)
    for part in ("avatars", "open", "owners"):
        (tmp_path / "store" / part).write_text("a file where a folder must be")
    with running.client(token) as client:
        answer = ask(client)
        assert answer.status_code in (500, 503) and str(tmp_path) not in answer.text


def test_secrets_are_in_no_log(start, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("SVAD_WEBHOOK_SECRET", "webhook-secret-of-the-test")
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start(webhook_hosts=("hooks.example.org",), options={"resolver": lambda host, port: ["10.0.0.1"]})
    with running.client(token) as client, caplog.at_level(logging.DEBUG, logger="svad_ray"):
        client.get("/v1/avatars")
        client.get("/v1/avatars?token=" + token)
        client.get("/v1/avatars", headers={"Authorization": "Bearer " + NOBODY})
        client.post(
            "/v1/avatars", files={"photo": ("a", b"x")}, data={"consent": "secret words", "webhook": "https://hooks.example.org/?key=hunter2"}
        )
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("svad_ray"))
    assert "GET /v1/avatars 200" in text
    for secret in (token, token.split("_", 2)[2], NOBODY, "webhook-secret-of-the-test", "hunter2", "secret words"):
        assert secret not in text


def test_a_hanging_store_does_not_stop_the_loop(start, tmp_path, monkeypatch):
    token = add_token(tmp_path / "tokens.json", "anna")
    running = start()
    hold = threading.Event()
    real = type(running.book).ids
    monkeypatch.setattr(type(running.book), "ids", lambda self, *a, **k: hold.wait(20) and real(self, *a, **k))
    with running.client(token) as client:
        stuck = threading.Thread(target=lambda: client.get("/v1/avatars"))
        stuck.start()
        time.sleep(0.2)
        began = time.monotonic()
        assert client.get("/v1/health").status_code == 200
        assert client.get("/v1/avatars/" + "0" * 32).status_code == 404
        assert time.monotonic() - began < 5 and stuck.is_alive()
        hold.set()
        stuck.join(20)


def test_answers_carry_safe_headers(client, finished):
    for path in ("/v1/avatars", f"/v1/avatars/{finished['id']}/artefacts/avatar/avatar.json", "/v1/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and "sandbox" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 16
    assert client.get(f"/v1/avatars/{finished['id']}/artefacts/avatar/avatar.json").headers["content-disposition"].startswith("attachment")
