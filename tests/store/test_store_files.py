"""Created once, or replaced whole."""

import threading

import fsspec
import pytest

from svad_ray.errors import StoreError
from svad_ray.store.files import Files


@pytest.fixture(params=["local", "memory"])
def files(request, tmp_path):
    if request.param == "local":
        return Files(tmp_path)
    memory = fsspec.filesystem("memory")
    if memory.exists("/files"):
        memory.rm("/files", recursive=True)
    return Files("memory://files")


def test_of_many_callers_one_creates(tmp_path):
    won = []

    def create(i: int) -> None:
        if Files(tmp_path).create("a/marker", str(i).encode()):
            won.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(won) == 1 and (tmp_path / "a" / "marker").read_text() == str(won[0])
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["marker"]


def test_create_write_read_remove(files):
    assert files.create("x/y.json", b"1") and not files.create("x/y.json", b"2")
    assert files.read("x/y.json") == b"1"
    files.write("x/y.json", b"3")
    files.write("x/z.json", b"4")
    assert (files.read("x/y.json"), files.names("x"), files.glob("*/*.json")) == (b"3", ["y.json", "z.json"], ["x/y.json", "x/z.json"])
    files.remove("x")
    files.remove("x")
    assert files.read("x/y.json") is None and files.names("x") == [] and files.glob("*/*.json") == []


def test_a_file_system_that_creates_twice_is_found_out(files, tmp_path):
    files.probe()
    assert files.names() == []
    with pytest.raises(StoreError, match="does not keep its promise"):
        Files(f"simplecache::file://{tmp_path}").probe()
