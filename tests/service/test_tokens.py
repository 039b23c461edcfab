"""Tokens at rest, and limits per minute."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svad_ray.errors import ConfigError, InputError
from svad_ray.service.tokens import RateLimiter, Tokens, add_token, read_tokens, remove_tokens


def test_a_token_is_known_until_removed_and_its_secret_is_nowhere(tmp_path):
    path = tmp_path / "deep" / "tokens.json"
    token, other = add_token(path, "anna", open_avatars=2), add_token(path, "ben")
    tokens = Tokens(path)
    assert tokens.check(token).name == "anna" and tokens.check(token).open_avatars == 2 and tokens.check(other).name == "ben"
    secret = token.split("_", 2)[2]
    assert secret not in path.read_text() and token not in path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    late = add_token(path, "carl")
    assert tokens.check(late).name == "carl", "a new token works without a restart"
    assert remove_tokens(path, "anna") == 1 and remove_tokens(path, "anna") == 0
    assert tokens.check(token) is None and tokens.check(other).name == "ben"
    path.unlink()
    assert tokens.check(other) is None


def test_anything_but_the_whole_token_is_nobody(tmp_path):
    path = tmp_path / "tokens.json"
    token = add_token(path, "anna")
    tokens = Tokens(path)
    _, public, secret = token.split("_", 2)
    changed = ("A" if secret[0] != "A" else "B") + secret[1:]
    for wrong in ("", public, f"svad_{public}_", f"svad_{public}_{changed}", f"svad_{'0' * 16}_{secret}", token + "x", token.upper(), "é" * 50):
        assert tokens.check(wrong) is None
    entry = read_tokens(path)[0]
    assert tokens.check(f"svad_{public}_{entry.hash[:43]}") is None, "the stored hash is no token"


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "anonymous", "a" * 41, "-a"])
def test_names_that_could_be_mistaken_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        add_token(tmp_path / "t.json", name)


def test_damaged_file_is_an_error_and_lets_nobody_in(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{"tokens": [{"name"')
    with pytest.raises(ConfigError):
        Tokens(path).check("svad_" + "0" * 16 + "_" + "a" * 43)


@given(
    per_minute=st.integers(1, 600),
    gaps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=60),
    names=st.lists(st.sampled_from("ab"), min_size=60),
)
def test_rates_hold_in_every_window(per_minute, gaps, names):
    """Whatever the times of calls: in any window of w seconds at most per_minute (1 + w / 60) pass, and one that waits as told passes."""
    now = 0.0
    limiter = RateLimiter(clock=lambda: now)
    passed: dict[str, list[float]] = {"a": [], "b": []}
    for gap, name in zip(gaps, names):
        now += gap
        wait = limiter.wait_s(name, per_minute)
        if wait == 0:
            passed[name].append(now)
        else:
            assert 0 < wait <= 60 / per_minute + 1e-9
            now += wait + 1e-6
            assert limiter.wait_s(name, per_minute) == 0
            passed[name].append(now)
    for times in passed.values():
        for i, first in enumerate(times):
            for j in range(i, len(times)):
                assert j - i + 1 <= per_minute * (1 + (times[j] - first) / 60) + 1e-3


def test_calls_up_to_the_limit_pass_at_once():
    limiter = RateLimiter(clock=lambda: 0.0)
    assert [limiter.wait_s("a", 5) == 0 for _ in range(6)] == [True] * 5 + [False]
    assert limiter.wait_s("b", 5) == 0
