"""The doctor names the packages beyond the core that the settings ask for, and asks for no others."""

import importlib.util

import pytest

from svad_ray.config import load_settings
from svad_ray.doctor import examine


def extras(*sets):
    return {finding.subject: finding for finding in examine(load_settings(sets=sets)) if finding.subject.startswith("extra: ")}


def test_the_embedded_profile_needs_none():
    assert extras() == {}


@pytest.mark.parametrize(
    ("sets", "extra"),
    [
        (["perceive.backend=dwpose"], "onnx"),
        (["perceive.backend=mmpose"], "mmpose"),
        (["drift.measure=report"], "face"),
        (["identity.landmarks=dlib"], "face"),
        (["restore.backend=bfrffusion", "restore.faces.enlarger=realesrgan"], "realesrgan"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(monkeypatch, sets, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("dlib", "mmpose", "onnxruntime", "realesrgan") else found(name, *rest)
    )
    (finding,) = extras(*sets).values()
    assert finding.subject == f"extra: {extra}" and finding.state == "missing" and f"pip install svad-ray[{extra}]" in finding.remedy


def test_what_is_installed_is_fine():
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    assert extras("perceive.backend=dwpose")["extra: onnx"].state == "ok"
