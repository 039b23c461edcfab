"""The book of avatars: what several processes agree on through the store alone."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import service_kit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import PHOTO, Clock, at_once, order

from svad_ray.config import Settings
from svad_ray.errors import StoreError
from svad_ray.service.book import ABANDONED_S, AvatarBook, new_id
from svad_ray.service.records import Conflict, Gone, NotReady
from svad_ray.store import Key
from svad_ray.store.files import Files


@pytest.fixture(params=["file", "memory"])
def book(request, tmp_path) -> AvatarBook:
    root = str(tmp_path) if request.param == "file" else f"memory://book-{tmp_path.name}"
    return AvatarBook(root, clock=Clock())


def test_same_id_of_the_same_owner_only():
    assert new_id("anna", "k") == new_id("anna", "k") != new_id("ben", "k")
    assert new_id("a", "bc") != new_id("ab", "c")
    assert new_id("anna", None) != new_id("anna", None)


def test_of_many_creators_one_wins(book):
    made = at_once(8, lambda i: book.create(order(), PHOTO, avatar_id=new_id("anna", "k")))
    assert sum(new for _, new in made) == 1 and len({record.id for record, _ in made}) == 1
    assert book.ids("anna") == [made[0][0].id]
    assert book.unfinished() == [made[0][0].id]


def test_of_many_creators_with_different_bodies_one_wins_and_the_others_hear_of_it(book):
    def one(i: int) -> str:
        photo = b"photo %d" % i
        try:
            return book.create(order(photo=photo), photo, avatar_id=new_id("anna", "k"))[0].order.sha256
        except Conflict:
            return ""

    said = at_once(6, one)
    winner = book.get(new_id("anna", "k")).order.sha256
    assert [sha for sha in said if sha] == [winner]
    photos = [name for name in book.files.names(f"avatars/{new_id('anna', 'k')}") if name.startswith("photo-")]
    assert photos == [f"photo-{winner}"]


def test_events_of_many_writers_are_numbered_without_gaps(book):
    record, _ = book.create(order(), PHOTO)
    at_once(8, lambda i: [book.append_event(record.id, "progress", writer=i, turn=j) for j in range(5)])
    events = book.events(record.id)
    assert [event.number for event in events] == list(range(1, 42))
    assert {(event.data["writer"], event.data["turn"]) for event in events[1:]} == {(i, j) for i in range(8) for j in range(5)}
    assert [event.number for event in book.events(record.id, after=40)] == [41]


def test_of_many_claimants_one_gets_it(book):
    record, _ = book.create(order(), PHOTO)
    leases = [lease for lease in at_once(8, lambda i: book.claim(record.id, f"w{i}", 30.0)) if lease]
    assert len(leases) == 1 and book.get(record.id).state == "running"
    book.clock.now += 31
    assert book.get(record.id).state == "queued"
    late = [lease for lease in at_once(8, lambda i: book.claim(record.id, f"w{i}", 30.0)) if lease]
    assert len(late) == 1
    assert not book.renew(leases[0]) and book.renew(late[0])
    book.release(leases[0])
    assert book.held(record.id), "a lost lease cannot let go of another's"
    book.release(late[0])
    assert book.claim(record.id, "next") is not None


def test_first_end_stays(book):
    record, _ = book.create(order(), PHOTO)
    ends = at_once(6, lambda i: book.finish(record.id, "failed" if i % 2 else "cancelled", reason={"code": str(i)}))
    assert sum(ends) == 1
    events = book.events(record.id)
    assert events[-1].kind == book.get(record.id).state and [event.number for event in events] == [1, 2]
    with pytest.raises(Gone):
        book.append_event(record.id, "progress")
    assert book.claim(record.id, "w") is None and book.unfinished() == [] and book.open_count("anna") == 0


def test_cancelled_work_cannot_be_renewed(book):
    record, _ = book.create(order(), PHOTO)
    lease = book.claim(record.id, "w")
    assert book.renew(lease)
    assert book.cancel(record.id) and book.get(record.id).cancelling
    assert not book.renew(lease)
    book.finish(record.id, "cancelled")
    assert not book.cancel(record.id) and not book.get(record.id).cancelling


def test_removal_leaves_a_tombstone_alone(book):
    record, _ = book.create(order(webhook="https://x.example/"), PHOTO)
    other, _ = book.create(order(photo=b"2"), b"2")
    book.claim(record.id, "w")
    book.bury(record.id)
    with pytest.raises(Gone):
        book.get(record.id)
    assert book.files.read(f"avatars/{record.id}/request.json"), "burying removes nothing yet"
    removed = book.remove(record.id)
    assert removed.files >= 4 and removed.bytes > len(PHOTO)
    left = [name for name in book.files.fs.find(book.files.root) if record.id in name]
    assert [name.rsplit("/", 2)[-2:] for name in left] == [["tombstones", f"{record.id}.json"]]
    assert book.remove(record.id).files == 0 and book.ids("anna") == [other.id] == book.unfinished()
    with pytest.raises(Conflict):
        book.create(order(), PHOTO, avatar_id=record.id)


def test_sweep_takes_what_came_after_a_removal_and_what_was_never_finished(book):
    record, _ = book.create(order(), PHOTO)
    book.remove(record.id)
    book.files.write(f"avatars/{record.id}/work/late/x", b"late")
    half = new_id("anna", "half")
    book.files.write(f"avatars/{half}/photo-{'0' * 64}", PHOTO)
    book.files.write(f"open/anna/{half}", b'{"at": %f}' % book.clock.now)
    assert book.sweep() == [record.id]
    book.clock.now += ABANDONED_S + 1
    assert book.sweep() == [half] and book.sweep() == []
    assert [name for name in book.files.fs.find(book.files.root) if "tombstones" not in name] == []


@pytest.mark.parametrize("operation", range(1, 7))
def test_create_that_died_anywhere_can_be_repeated(tmp_path, monkeypatch, operation):
    """The process ends before its n-th writing; the same request later makes one whole avatar."""
    book, count = AvatarBook(str(tmp_path)), 0

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(self: Files, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == operation:
                raise StoreError("power cut")
            return call(self, *arguments)

        return inner

    with monkeypatch.context() as patch:
        patch.setattr(Files, "write", dying(Files.write))
        patch.setattr(Files, "create", dying(Files.create))
        with pytest.raises(StoreError):
            book.create(order(webhook="https://x.example/"), PHOTO, avatar_id=new_id("anna", "k"))
    record, new = book.create(order(webhook="https://x.example/"), PHOTO, avatar_id=new_id("anna", "k"))
    assert new == (operation < 5), "the fourth writing is the one that counts"
    assert book.unfinished() == [record.id] and book.ids("anna") == [record.id] and book.events(record.id)[0].kind == "queued"
    assert book.files.read(f"avatars/{record.id}/photo-{record.order.sha256}") == PHOTO


def test_foreign_and_malformed_ids_are_all_the_same_nobody(book):
    record, _ = book.create(order(), PHOTO)
    said = set()
    for avatar_id, owner in ((record.id, "ben"), ("0" * 32, "anna"), ("../anna", "anna"), ("", "anna"), (record.id.upper(), "anna")):
        with pytest.raises(Gone) as error:
            book.get(avatar_id, owner=owner)
        said.add(str(error.value))
    assert len(said) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_no_text_becomes_a_path(tmp_path_factory, text):
    book = AvatarBook(str(tmp_path_factory.getbasetemp() / "paths"))
    for call in (book.get, book.events, book.remove, book.cancel, book.out, book.avatar, book.held, book.subject_request):
        with pytest.raises(Gone):
            call(text)


def test_files_of_an_unfinished_avatar(book):
    record, _ = book.create(order(), PHOTO)
    assert book.artefacts(record.id) == {}
    with pytest.raises(NotReady):
        book.open(record.id, "x")
    from svad_ray.store import ArtefactStore

    key = Key("someone", "0" * 32)
    ArtefactStore(f"{book.out(record.id)}/subjects").put_files(key, {"a/b.txt": b"hello"})
    book.finish(record.id, "done", key=key, warnings=("blurry",))
    assert book.artefacts(record.id)["a/b.txt"]["bytes"] == 5
    with book.open(record.id, "a/b.txt") as stream:
        assert stream.read() == b"hello"
    for name in ("a", "../COMMITTED.json", "/etc/passwd", "a/b.txt/", ""):
        with pytest.raises(Gone):
            book.open(record.id, name)
    assert book.get(record.id).warnings == ("blurry",) and book.events(record.id)[-1].data == {"warnings": ["blurry"]}


def test_subject_request_is_what_fulfil_takes(book):
    from svad_ray.photo import load_photo

    photo = service_kit.photo_png()
    record, _ = book.create(order(photo=photo), photo)
    request = book.subject_request(record.id)
    assert load_photo(request.uri).sha256 == request.sha256 == hashlib.sha256(photo).hexdigest()
    assert request.settings == Settings() and request.subject_id == record.id and request.consent == "yes"


def test_further_photos_are_kept_and_go_with_the_avatar(book):
    from svad_ray.photo import load_photo

    photos = [service_kit.photo_png(k) for k in range(3)]
    hashes = tuple(hashlib.sha256(photo).hexdigest() for photo in photos)
    asked = order(photo=photos[0], also=hashes[1:], also_names=("b.png", "c.png"))
    record, new = book.create(asked, photos[0], also=photos[1:], avatar_id=new_id("anna", "k"))
    request = book.subject_request(record.id)
    assert new and tuple(load_photo(uri).sha256 for uri, _ in request.photos) == hashes == tuple(sha for _, sha in request.photos)
    assert book.create(asked, photos[0], also=photos[1:], avatar_id=new_id("anna", "k"))[1] is False
    with pytest.raises(Conflict):
        book.create(order(photo=photos[0], also=hashes[2:]), photos[0], also=photos[2:], avatar_id=new_id("anna", "k"))
    assert tuple(load_photo(uri).sha256 for uri, _ in book.subject_request(record.id).photos) == hashes
    book.bury(record.id)
    book.remove(record.id)
    assert not book.files.fs.exists(request.also[0].removeprefix("memory://") if "memory" in book.root else request.also[0])


def test_removal_while_somebody_writes(tmp_path):
    """A writer that does not know yet cannot keep the removal from ending; what it still writes is swept."""
    book, stop = AvatarBook(str(tmp_path)), threading.Event()
    record, _ = book.create(order(), PHOTO)

    def write() -> None:
        i = 0
        while not stop.is_set():
            with contextlib.suppress(StoreError, OSError):
                book.files.write(f"avatars/{record.id}/work/step-{i % 7}/file-{i}", b"x" * 100)
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with contextlib.suppress(StoreError):
            book.remove(record.id)
    finally:
        stop.set()
        writer.join()
    assert not book._exists(record.id)
    book.sweep()
    assert [name.rsplit("/", 2)[-2] for name in book.files.fs.find(str(tmp_path))] == ["tombstones"]
