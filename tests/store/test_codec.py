"""What is written is read back bit for bit, whatever it is."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from svad_ray.errors import StoreError
from svad_ray.store.codec import decode, encode
from svad_ray.subject import Clip, Perception, Photo


def round_trip(value):
    files = dict(encode(value))
    return decode(files.__getitem__)


DTYPES = st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.uint16, np.float16, np.float32, np.float64, np.bool_])
ARRAYS = DTYPES.flatmap(lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
PICTURES = hnp.arrays(np.uint8, st.one_of(st.tuples(*[st.integers(1, 20)] * 2, st.just(3)), st.tuples(st.integers(0, 3), *[st.integers(1, 20)] * 2)))
FILMS = hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(1, 20), st.just(3)))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), ARRAYS, PICTURES, FILMS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_round_trip_is_exact(same, value):
    assert same(value, round_trip(value))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_data_that_flows(same, track, seed, frames):
    rng = np.random.default_rng(seed)
    film, masks = rng.integers(0, 256, (frames, 24, 16, 3), np.uint8), rng.integers(0, 256, (frames, 24, 16), np.uint8)
    clip = Clip(film, masks, track(frames, rng), ("ok",) * frames, first=3)
    photo = Photo("möbius/../x", film[0], "0" * 64, ("EXIF rotation applied",))
    points = rng.random((133, 2), np.float32)
    seen = Perception(
        points, points[:, 0], rng.random((24, 16), np.float32), points[:33], points[:33, 0], np.full((33, 3), np.nan, np.float32), None,
        np.full((2, 21, 3), np.nan, np.float32), 0.9, 1, ("far away",),
    )  # fmt: skip
    for value in (clip, photo, seen, {"clip": clip, "photo": (photo, seen)}):
        assert same(value, round_trip(value))


def test_frames_are_png_files_that_other_programs_show_in_the_right_colours():
    film = np.zeros((2, 10, 12, 3), np.uint8)
    film[..., 0] = 200  # red
    files = dict(encode({"frames": film}))
    names = [name for name in files if name.endswith(".png")]
    assert len(names) == 2
    assert cv2.imdecode(np.frombuffer(files[names[0]], np.uint8), cv2.IMREAD_COLOR)[0, 0].tolist() == [0, 0, 200]  # OpenCV reads BGR


def test_views_of_arrays_keep_their_values(same):
    base = np.arange(24.0).reshape(4, 6)
    assert same(np.ascontiguousarray(base[::2, ::-1].T), round_trip({"a": base[::2, ::-1].T})["a"])


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array(["a"]), np.array([1j]), {"deep": [lambda: 0]}])
def test_what_cannot_be_stored_is_refused_by_name(value):
    with pytest.raises(TypeError, match="stored"):
        list(encode(value))


def test_reading_never_makes_a_foreign_class():
    bad = b'{"format": 1, "value": {"$": "dataclass", "type": "pathlib:Path", "fields": {}}}'
    with pytest.raises(StoreError, match="pathlib:Path"):
        decode({"data.json": bad}.__getitem__)
