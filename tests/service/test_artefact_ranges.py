"""Byte ranges and conditional requests, against the plain file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.service.answers import NoSuchRange
from svad_ray.service.files import byte_range, content_type

NAME = "avatar/avatar.safetensors"


@given(size=st.integers(0, 50), first=st.none() | st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_ranges_select_what_slices_select(size, first, last):
    data = bytes(range(size))
    if first is None and last is None:
        expected = data
    elif first is None:
        expected = data[-last:] if last else b""
    else:
        expected = data[first : None if last is None else last + 1]
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is not None and last is not None and last < first:
        assert byte_range(header, size) is None, "not a range: the header does not count"
        return
    try:
        part = byte_range(header, size)
    except NoSuchRange:
        assert expected == b""
        return
    start, stop = part or (0, size)
    assert data[start:stop] == expected and (part is None or expected)


@pytest.mark.parametrize("header", [None, "", "bytes=0-1,4-5", "items=0-1", "bytes=a-b", "bytes=-", "bytes=1", "bytes=--1"])
def test_headers_that_are_no_single_range(header):
    assert byte_range(header, 10) is None


def test_over_http(client, finished):
    url = f"/v1/avatars/{finished['id']}/artefacts/{NAME}"
    whole = client.get(url)
    data = whole.content
    assert whole.status_code == 200 and whole.headers["Accept-Ranges"] == "bytes" and len(data) > 1000
    part = client.get(url, headers={"Range": "bytes=10-99"})
    assert part.status_code == 206 and part.content == data[10:100] and part.headers["Content-Range"] == f"bytes 10-99/{len(data)}"
    assert client.get(url, headers={"Range": "bytes=-7"}).content == data[-7:]
    assert client.get(url, headers={"Range": f"bytes={len(data) - 3}-"}).content == data[-3:]
    joined = b"".join(client.get(url, headers={"Range": f"bytes={i}-{i + 2999}"}).content for i in range(0, len(data), 3000))
    assert joined == data
    beyond = client.get(url, headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416 and beyond.headers["Content-Range"] == f"bytes */{len(data)}"


def test_conditions(client, finished):
    url = f"/v1/avatars/{finished['id']}/artefacts/{NAME}"
    etag = client.get(url).headers["ETag"]
    unchanged = client.get(url, headers={"If-None-Match": f'"other", {etag}'})
    assert unchanged.status_code == 304 and unchanged.content == b""
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(url, headers={"Range": "bytes=0-1", "If-Range": etag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    head = client.head(url)
    assert head.status_code == 200 and head.content == b"" and int(head.headers["Content-Length"]) == len(client.get(url).content)


@pytest.mark.parametrize(
    "name", ["nothing", "../../../request.json", "..%2f..%2f..%2frequest.json", "%2fetc%2fpasswd", "avatar", "avatar/", "manifest.json"]
)
def test_names_that_are_no_file(client, finished, name):
    assert client.get(f"/v1/avatars/{finished['id']}/artefacts/{name}").status_code in (404, 405)


def test_types():
    assert content_type("report.html") == "text/html" and content_type("turntable.mp4") == "video/mp4"
    assert (
        content_type("a/avatar.ply") == content_type("x") == "application/octet-stream" and content_type("avatar/avatar.json") == "application/json"
    )
