"""What can be said about the image by reading its recipe."""

import re
from pathlib import Path

import yaml

import svad_ray

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
LINES = [line for line in re.sub(r"\\\n\s*", " ", TEXT).splitlines() if line and not line.startswith("#")]


def test_everything_is_pinned_and_the_user_is_not_root():
    assert re.fullmatch(r"FROM python:3\.11\.\d+-slim-\w+", LINES[0])
    assert [line for line in LINES if line.startswith("USER ")][-1] == "USER 1000"
    assert 'ray[serve,data]==2.60.0"' in TEXT
    assert f'__version__ = "{svad_ray.__version__}"' in TEXT


def test_what_is_copied_is_there_and_no_more_than_the_manifests_name():
    copied = [word for line in LINES if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    job = (ROOT / "deploy/kubernetes/rayjob.yaml").read_text(encoding="utf-8")
    for path in re.findall(r"/opt/svad-ray/(\w+)/", job):
        assert path in copied


def test_the_image_is_the_one_that_the_manifests_ask_for():
    built = re.search(r"-t (\S+)", TEXT)[1]
    for path in (ROOT / "deploy" / "kubernetes").glob("ray*.yaml"):
        assert set(re.findall(r"image: (\S+)", path.read_text(encoding="utf-8"))) == {built}
    users = [d for d in yaml.safe_load_all((ROOT / "deploy/kubernetes/rayjob.yaml").read_text(encoding="utf-8")) if d["kind"] == "RayJob"]
    assert users[0]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsUser"] == 1000


def test_the_build_sees_what_it_copies_and_nothing_else():
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    copied = {word for line in LINES if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert copied == {line[1:] for line in lines if line.startswith("!")}
