"""The face's distance from the photo's: small for the photo itself, larger for another person, and said in the report."""

from types import SimpleNamespace

import numpy as np
import pytest

from svad_ray.config import DriftConfig
from svad_ray.errors import BackendUnavailable, QualityRejected, SvadError
from svad_ray.stages.identity.drift import DriftGauge, FaceDrift

NAN = float("nan")


def drift(**distances):
    given = {"generated": [0.3, 0.4], "identity": [0.2, 0.3], "restored": [0.2, 0.3], **distances}
    return FaceDrift((0, 3), **{name: np.array(values) for name, values in given.items()})


@pytest.mark.parametrize(
    ("distances", "measure", "refused"),
    [
        ([0.2, 0.3], "gate", ""),
        ([0.2, NAN], "gate", ""),
        ([0.7, 0.8], "gate", "its distance is 0.75"),
        ([0.7, 0.8], "report", ""),
        ([NAN, NAN], "gate", "no face was found"),
        ([], "gate", "no face was found"),
    ],
)
def test_the_gate(distances, measure, refused):
    config = DriftConfig(measure=measure, max_distance=0.6)
    if not refused:
        drift(restored=distances).check(config)
        return
    with pytest.raises(QualityRejected, match=refused):
        drift(restored=distances).check(config)


def test_the_reports_table():
    from svad_ray.deliver import drift_tables

    assert drift_tables(SimpleNamespace(drift=None)) == []
    (table,) = drift_tables(SimpleNamespace(drift=SimpleNamespace(value=drift(generated=[0.31, NAN], identity=[NAN, NAN]))))
    assert table.rows[0] == ("generated", "0.310", "0.310", "1 of 2") and table.rows[1] == ("identity", "no face", "no face", "0 of 2")


def test_without_dlib_nothing_is_begun(monkeypatch):
    import sys

    from svad_ray import pipeline
    from svad_ray.config import load_settings

    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(BackendUnavailable, match=r"svad-ray\[face\]"):
        pipeline.create(None, load_settings(sets=["drift.measure=report"]), None, stages=SimpleNamespace())


@pytest.mark.slow
@pytest.mark.models
def test_people_are_told_apart():
    """A person seen smaller, darker and mirrored is nearer to the photo than another person is."""
    pytest.importorskip("dlib")
    from svad_ray.evaluate.synthetic.demo import demo_person
    from svad_ray.photo import decode_photo

    gauge = DriftGauge()
    try:
        gauge.setup()
        photos = [decode_photo(demo_person(seed).png, name=str(seed)) for seed in (0, 1)]
    except SvadError as error:
        pytest.skip(f"model packages cannot be had here: {error.found}")

    def embedding(image):
        (seen,) = gauge.perceive.track(np.ascontiguousarray(image)[None], face=True)
        assert seen.face_mesh is not None
        return gauge.embedding(np.ascontiguousarray(image), seen.face_mesh)

    own, other = (embedding(photo.image) for photo in photos)
    changed = embedding((photos[0].image[::2, ::-2] * 0.85).astype(np.uint8))
    assert np.linalg.norm(own - changed) < 0.7 * np.linalg.norm(own - other)
    assert np.linalg.norm(own) == pytest.approx(1.4, abs=0.4)
