"""Webhooks: signed, tried again, sent by one."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
import service_kit
from service_helpers import PHOTO, Clock, at_once, order

from svad_ray.errors import ConfigError
from svad_ray.service.addresses import Rules
from svad_ray.service.book import AvatarBook
from svad_ray.service.tokens import add_token
from svad_ray.service.webhooks import Courier, signature

SECRET = b"a secret of enough characters"


def hmac_sha256(key: bytes, message: bytes) -> str:
    """RFC 2104 by its formula: H(K ^ opad, H(K ^ ipad, text))."""
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()


@pytest.mark.parametrize("key", [SECRET, b"k" * 64, b"k" * 100])
def test_signature_is_hmac(key):
    assert signature(key, 1700000000, b'{"a":1}') == "t=1700000000,v1=" + hmac_sha256(key, b'1700000000.{"a":1}')


def resolver(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def courier(book: AvatarBook, port: int, waits: tuple[float, ...]) -> Courier:
    name = f"hooks.test:{port}"
    return Courier(book, Rules((name,), ("http",), (name,), 5.0), SECRET, waits, clock=book.clock, resolver=resolver)


def ended(tmp_path, port: int) -> tuple[AvatarBook, str]:
    book = AvatarBook(str(tmp_path), clock=Clock())
    record, _ = book.create(order(webhook=f"http://hooks.test:{port}/hook"), PHOTO)
    book.finish(record.id, "failed", reason={"code": "x", "found": "y", "expected": "", "remedy": ""})
    return book, record.id


def test_tries_wait_longer_and_end(tmp_path, web):
    book, _ = ended(tmp_path, web.port)
    web.answers["/hook"] = (500, {}, b"")
    sender = courier(book, web.port, (10.0, 100.0))
    times = []
    for _ in range(400):
        count = len(web.asked)
        sender.deliver_due()
        if len(web.asked) > count:
            times.append(book.clock.now - 1_000_000)
        book.clock.now += 1
    assert times == [0, 10, 110], "at once, after 10 s, after 100 s, then given up"
    assert list(book.to_notify()) == []


def test_arrives_once_and_can_be_verified(tmp_path, web):
    book, avatar_id = ended(tmp_path, web.port)
    web.answers["/hook"] = (204, {}, b"")
    sender = courier(book, web.port, (10.0,))
    assert sum(at_once(5, lambda i: sender.deliver_due())) == 1 and sender.deliver_due() == 0
    ((method, _, headers, body),) = web.asked
    stamp, mac = (part.split("=")[1] for part in headers["Svad-Signature"].split(","))
    assert method == "POST" and mac == hmac_sha256(SECRET, stamp.encode() + b"." + body) and int(stamp) == int(book.clock.now)
    assert json.loads(body)["id"] == avatar_id == headers["Svad-Avatar"] and json.loads(body)["state"] == "failed"


def test_removed_avatar_is_not_told_of(tmp_path, web):
    book, avatar_id = ended(tmp_path, web.port)
    book.remove(avatar_id)
    assert courier(book, web.port, ()).deliver_due() == 0 and web.asked == []


def test_over_http(start, tmp_path, web, monkeypatch):
    monkeypatch.setenv("SVAD_WEBHOOK_SECRET", SECRET.decode())
    monkeypatch.setattr("svad_ray.service.app.COURIER_EVERY_S", 0.1)
    token = add_token(tmp_path / "tokens.json", "anna")
    name = f"hooks.test:{web.port}"
    web.answers["/hook"] = (200, {}, b"")
    running = start(webhook_hosts=(name,), webhook_schemes=("http",), private_hosts=(name,), options={"resolver": resolver})
    with running.client(token) as client:
        files = {"photo": ("a.png", service_kit.photo_png(), "image/png")}
        for address in ("http://169.254.169.254/x", "file:///etc/passwd", "http://localhost/x", f"https://{name}/hook"):
            refused = client.post("/v1/avatars", files=files, data={"consent": "yes", "webhook": address})
            assert refused.status_code == 422 and refused.json()["error"]["code"] == "address_refused"
        made = client.post("/v1/avatars", files=files, data={"consent": "yes", "webhook": f"http://{name}/hook"})
        time.sleep(0.3)
        assert web.asked == [], "nothing to tell before the end"
        running.book.finish(made.json()["id"], "done")
        deadline = time.monotonic() + 20
        while not web.asked:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    body, headers = web.asked[0][3], web.asked[0][2]
    assert json.loads(body)["state"] == "done"
    stamp, mac = (part.split("=")[1] for part in headers["Svad-Signature"].split(","))
    assert mac == hmac_sha256(SECRET, stamp.encode() + b"." + body)


def test_no_webhooks_without_a_secret(start, monkeypatch):
    monkeypatch.delenv("SVAD_WEBHOOK_SECRET", raising=False)
    with pytest.raises(ConfigError):
        start(webhook_hosts=("hooks.example.org",))
