"""Reaching out: only where the operator said, and nowhere private by accident."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.service.addresses import AddressFailed, AddressRefused, Rules, check, fetch, is_public, post

PUBLIC = "93.184.216.34"


def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.192", "198.18.0.1"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "::7f00:1"),
        *("2001:0:7f00:1::", "2001:db8::1", "not an address", ""),
    ],
)
def test_private_addresses_in_every_dress(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC, "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_alike(ip):
    """An IPv4 address is public or not, however it is wrapped."""
    for wrapped in (f"::ffff:{ip}", str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(ip)))):
        assert is_public(wrapped) == is_public(str(ip))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://photos.example.org/x",
            "gopher://photos.example.org/",
            "data:image/png;base64,AAAA",
            "photos.example.org/x",
            "",
        ),
        *("http://photos.example.org/x", "https://evil.example.org/x", "https://photos.example.org.evil.org/x", "https://xphotos.example.org/"),
        *("https://photos.example.org:8443/x", "https://anna:pw@photos.example.org/", "https://photos.example.org@evil.org/", "https:///x"),
        *("https://photos.example.org\\@evil.org/", "https://photos.example.org/a b", "https://photos.example.org/\r\nHost: x", "https://[::1]/"),
        *("https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://localhost/", "https://169.254.169.254/latest/meta-data/"),
        *("https://photos.example.org:99999/", "https://photos.example.org:x/", "https://ph\u00f6tos.example.org/", "https://" + "a" * 3000),
    ],
)
def test_refused_addresses(url):
    with pytest.raises(AddressRefused):
        check(url, Rules(hosts=("photos.example.org", "*.photos.example.org")), resolver=public)


def test_allowed_addresses():
    rules = Rules(hosts=("photos.example.org", "*.cdn.example.org", "odd.example.org:8443"))
    assert check("https://photos.example.org/a?b=c", rules, resolver=public).path == "/a?b=c"
    assert check("https://PHOTOS.example.org./a", rules, resolver=public).host == "photos.example.org"
    assert check("https://x.y.cdn.example.org/", rules, resolver=public).address == PUBLIC
    assert check("https://odd.example.org:8443/", rules, resolver=public).port == 8443
    for url in ("https://cdn.example.org/", "https://odd.example.org/", "https://photos.example.org:8443/"):
        with pytest.raises(AddressRefused):
            check(url, rules, resolver=public)


@pytest.mark.parametrize("answers", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_allowed_name_that_stands_for_a_private_machine(answers):
    with pytest.raises(AddressRefused):
        check("https://photos.example.org/", Rules(hosts=("photos.example.org",)), resolver=lambda host, port: answers)


def test_allowed_name_localhost_is_refused_by_the_real_resolver():
    with pytest.raises(AddressRefused):
        check("https://localhost/", Rules(hosts=("localhost",)))


class Names:
    """A resolver that answers as told and counts."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers, self.count = {name.replace("_", "."): list(told) for name, told in answers.items()}, 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.count += 1
        told = self.answers[host]
        return told.pop(0) if len(told) > 1 else told[0]


def local(web: Any, *more: str, **values: Any) -> Rules:
    """The test's web server is reached by a name that no DNS knows."""
    name = f"photos.test:{web.port}"
    return Rules(hosts=(name, *more), schemes=("http",), private_hosts=(name,), **values)


def test_the_checked_address_is_the_one_that_is_reached(web):
    """A name that answers otherwise the second time gains nothing: it is asked once, and the system's resolver not at all."""
    web.answers["/a.png"] = (200, {}, b"pixels")
    names = Names(photos_test=[["127.0.0.1"], ["10.255.255.1"]])
    assert fetch(f"http://photos.test:{web.port}/a.png", local(web), max_bytes=100, resolver=names) == b"pixels"
    assert names.count == 1 and web.asked[0][2]["Host"] == f"photos.test:{web.port}"


def test_rebinding_between_redirects_is_seen(web):
    web.answers["/a"] = (302, {"Location": "/b"}, b"")
    web.answers["/b"] = (200, {}, b"secret")
    rules = Rules(hosts=(f"photos.test:{web.port}",), schemes=("http",))
    names = Names(photos_test=[["127.0.0.1"]])
    with pytest.raises(AddressRefused):
        fetch(f"http://photos.test:{web.port}/a", rules, max_bytes=100, resolver=names)
    assert web.asked == []


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "http://169.254.169.254/latest/", "http://localhost/", "//evil.test/x", "https://photos.test/", "http://[::1]:1/"],
)
def test_redirects_are_checked(web, location):
    web.answers["/a"] = (302, {"Location": location}, b"")
    names = Names(photos_test=[["127.0.0.1"]], localhost=[["127.0.0.1"]], evil_test=[[PUBLIC]])
    with pytest.raises(AddressRefused):
        fetch(f"http://photos.test:{web.port}/a", local(web), max_bytes=100, resolver=names)
    assert len(web.asked) == 1


def test_redirects_within_the_list_are_followed_three_times(web):
    for i in range(5):
        web.answers[f"/{i}"] = (307, {"Location": f"/{i + 1}"}, b"")
    web.answers["/5"] = (200, {}, b"end")
    names = Names(photos_test=[["127.0.0.1"]])
    base = f"http://photos.test:{web.port}"
    assert fetch(f"{base}/2", local(web), max_bytes=10, resolver=names) == b"end"
    with pytest.raises(AddressFailed):
        fetch(f"{base}/1", local(web), max_bytes=10, resolver=names)


def test_size_is_bounded_while_reading(web):
    sent = []

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(4000):
            handler.wfile.write(b"x" * 65536)
            sent.append(65536)

    web.answers["/endless"], web.answers["/exact"], web.answers["/more"] = endless, (200, {}, b"x" * 50), (200, {}, b"x" * 51)
    names, base = Names(photos_test=[["127.0.0.1"]]), f"http://photos.test:{web.port}"
    assert len(fetch(f"{base}/exact", local(web), max_bytes=50, resolver=names)) == 50
    for path in ("/more", "/endless"):
        with pytest.raises(AddressFailed, match="larger"):
            fetch(f"{base}{path}", local(web), max_bytes=50, resolver=names)
    assert sum(sent) < 50e6


def test_a_drip_of_bytes_ends_at_the_deadline(web):
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    def slow_head(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(100):
            handler.wfile.write(b"X-%d: 1\r\n" % i)
            handler.wfile.flush()
            time.sleep(0.1)

    web.answers["/drip"], web.answers["/head"] = drip, slow_head
    for path in ("/drip", "/head"):
        began = time.monotonic()
        with pytest.raises(AddressFailed):
            fetch(f"http://photos.test:{web.port}{path}", local(web, timeout_s=0.5), max_bytes=2000, resolver=Names(photos_test=[["127.0.0.1"]]))
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("told", [(404, {}, b"no"), (200, {"Content-Length": "100"}, b"short"), (302, {}, b"")])
def test_answers_that_are_no_photo(web, told):
    web.answers["/a"] = told
    with pytest.raises(AddressFailed):
        fetch(f"http://photos.test:{web.port}/a", local(web, timeout_s=2), max_bytes=1000, resolver=Names(photos_test=[["127.0.0.1"]]))


def test_certificates_are_checked_against_the_name(web):
    """TLS to a server that speaks none, or whose certificate is not the name's, gives an error and no data."""
    rules = Rules(hosts=(f"photos.test:{web.port}",), private_hosts=(f"photos.test:{web.port}",), timeout_s=2)
    with pytest.raises(AddressFailed):
        fetch(f"https://photos.test:{web.port}/a", rules, max_bytes=10, resolver=Names(photos_test=[["127.0.0.1"]]))


def test_post_does_not_follow(web):
    web.answers["/hook"] = (302, {"Location": "/other"}, b"")
    assert post(f"http://photos.test:{web.port}/hook", local(web), b"{}", {}, resolver=Names(photos_test=[["127.0.0.1"]])) == 302
    assert [path for _, path, _, _ in web.asked] == ["/hook"]
