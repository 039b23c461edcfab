"""The result does not depend on threads, calls may overlap, and a forked child works."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from svad_ray.errors import ConfigError
from svad_ray.splat import get_threads, rasterization, set_threads
from svad_ray.splat.threads import even_ranges, in_order, run_ranges

from .scenes import random_scene


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


def results() -> list[torch.Tensor]:
    scene = random_scene(5000, 160, 130, seed=8, size=0.02, cameras=2)
    inputs = scene.tensors(torch.float32, grad=True)
    image, alpha, _ = rasterization(*inputs, scene.Ks, 160, 130, render_mode="RGB+D")
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return [image.detach(), alpha.detach(), *torch.autograd.grad((image * weights).sum(), inputs)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bit_identical_for_any_number_of_threads_and_run_to_run() -> None:
    set_threads(1)
    single, again = results(), results()
    assert same(single, again)
    for count in (2, 3):
        set_threads(count)
        assert same(single, results())


def test_calls_from_several_threads_at_once() -> None:
    set_threads(2)
    expected = results()
    with ThreadPoolExecutor(3) as pool:
        assert all(same(expected, found.result()) for found in [pool.submit(results) for _ in range(6)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_its_own_workers() -> None:
    set_threads(2)
    run_ranges(lambda a, b: None, [(0, 1), (1, 2), (2, 3)])  # the parent's workers exist now
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for its parent's workers ends here, with a signal
        done: list[int] = []
        run_ranges(lambda a, b: done.append(a), [(0, 1), (1, 2), (2, 3)])
        os._exit(0 if sorted(done) == [0, 1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_error_in_any_range_reaches_the_caller() -> None:
    def work(start: int, stop: int) -> None:
        raise ValueError(start)

    for count in (1, 2):
        set_threads(count)
        with pytest.raises(ValueError):
            run_ranges(work, [(0, 1), (1, 2)])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_even_ranges_cover_everything_in_whole_blocks(threads: int, count: int) -> None:
    set_threads(threads)
    ranges = even_ranges(count, block=8)
    assert [i for a, b in ranges for i in range(a, b)] == list(range(count)) and all(a % 8 == 0 for a, _ in ranges)


def test_where_the_number_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVAD_THREADS", raising=False)
    assert get_threads() == torch.get_num_threads()
    monkeypatch.setenv("SVAD_THREADS", "3")
    assert get_threads() == 3
    set_threads(2)
    assert get_threads() == 2
    set_threads(None)
    monkeypatch.setenv("SVAD_THREADS", "many")
    with pytest.raises(ConfigError, match="many"):
        get_threads()
    with pytest.raises(ConfigError):
        set_threads(0)


def test_work_in_order_comes_in_order_each_on_one_thread() -> None:
    """Later work that is quicker waits for its turn; inside there is one thread, outside as many as before."""
    set_threads(3)

    def work(i: int) -> tuple[int, int]:
        time.sleep(0.01 * (3 - i % 4))
        return i, get_threads()

    assert list(in_order(work, 9)) == [(i, 1) for i in range(9)]
    assert get_threads() == 3
    set_threads(1)
    assert [i for i, _ in in_order(work, 3)] == [0, 1, 2]
    assert list(in_order(work, 0)) == []


def test_an_error_comes_in_its_place_and_a_reader_may_stop() -> None:
    set_threads(2)
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        if i == 3:
            raise ValueError("the fourth")
        return i

    got = in_order(work, 100)
    assert [next(got) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(got)
    early = in_order(lambda i: started.append(i) or i, 100)
    assert next(early) == 0
    early.close()
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count < 30  # nothing goes on
