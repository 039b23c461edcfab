"""The command line as a user meets it: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import svad_ray
from svad_ray import doctor
from svad_ray.backends import STAGES, descriptors
from svad_ray.config import Settings, load_settings
from svad_ray.reference import backends_markdown

ROOT = Path(svad_ray.__file__).parent.parent


def svad(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "svad_ray", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=300)


def python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, timeout=300)


def test_help_names_every_command():
    said = svad("--help").stdout
    assert all(f" {name} " in said for name in ("demo", "create", "animate", "render", "track", "export", "config", "models", "doctor"))
    assert svad("--version").stdout.strip() == svad_ray.__version__


def test_help_loads_no_heavy_package():
    lines = ["import sys, svad_ray.cli as c", "try: c.app(['create', '--help'])", "except SystemExit: pass"]
    lines += ["print('torch' in sys.modules, 'cv2' in sys.modules)"]
    done = python("\n".join(lines))
    assert done.stdout.endswith("False False\n") and "--consent" in done.stdout


def test_config_prints_what_it_reads(tmp_path):
    said = svad("config", "--set", "animate.frames=7").stdout
    assert yaml.safe_load(said)["animate"]["frames"] == 7
    (tmp_path / "s.yaml").write_text(said)
    assert load_settings(path=tmp_path / "s.yaml").animate.frames == 7
    assert svad("config", "--config", tmp_path / "s.yaml").stdout == said


def picture(path: Path, size: tuple[int, int] = (300, 400)) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def truncated(path: Path) -> Path:
    whole = picture(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


BAD = {
    "missing": lambda folder: folder / "none.jpg",
    "folder": lambda folder: folder,
    "text": lambda folder: (folder / "a.jpg", (folder / "a.jpg").write_text("no picture"))[0],
    "truncated": lambda folder: truncated(folder / "b.png"),
    "one pixel": lambda folder: picture(folder / "c.png", (1, 1)),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_photos_end_plainly_and_leave_nothing(kind, tmp_path):
    done = svad("create", BAD[kind](tmp_path), "--out", tmp_path / "out")
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.startswith("error ") and "Try:" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_ends_before_any_work(tmp_path):
    done = svad("create", tmp_path / "x.png", "--out", tmp_path / "out", "--set", "avatar.gausians=3")
    assert done.returncode == 2 and "did you mean 'gaussians'?" in done.stderr


def test_a_paper_backend_says_what_to_bring(tmp_path):
    done = svad("create", picture(tmp_path / "x.png"), "--out", tmp_path / "out", "--profile", "paper")
    assert done.returncode == 4
    assert "sam_vit_h_4b8939.pth" in done.stderr and "perceive.backend=mediapipe" in done.stderr
    assert not (tmp_path / "out").exists()


def test_offline_without_models_names_the_remedy(tmp_path):
    done = svad("create", picture(tmp_path / "x.png"), "--out", tmp_path / "out", "--offline", "--cache-dir", tmp_path / "cache")
    assert done.returncode == 4 and "svad-ray models pull" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_absent_avatar(tmp_path):
    for command in (["render"], ["animate"], ["export"]):
        done = svad(*command, tmp_path)
        assert done.returncode == 2 and "there is no avatar" in done.stderr


def test_an_unexpected_error_is_one_line_and_a_log(tmp_path):
    lines = ["import svad_ray.config as c", "def broken(**k): raise RuntimeError('boom [bold]')", "c.load_settings = broken"]
    code = "\n".join([*lines, "from svad_ray.cli import main", "main()"])
    done = python(code, "config", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "unexpected RuntimeError boom [bold]" in done.stderr and "Traceback" not in done.stderr
    (log,) = tmp_path.glob("svad-ray-*.log")
    assert "Traceback" in log.read_text()
    assert "Traceback" in python(code, "--debug", "config").stderr


def test_doctor_reports_every_stage_and_missing_files(tmp_path):
    findings = doctor.examine(Settings(cache_dir=str(tmp_path), offline=True))
    by_subject = {finding.subject: finding for finding in findings}
    assert {f"stage: {stage}" for stage in STAGES} <= by_subject.keys()
    assert by_subject["models: mediapipe"].state == "missing" and "models pull mediapipe" in by_subject["models: mediapipe"].remedy
    paper = {finding.subject: finding for finding in doctor.examine(load_settings(profile="paper"))}
    assert paper["stage: animate"].state == "missing" and "motion_module.pth" in paper["stage: animate"].remedy


def test_the_licence_page_is_the_descriptors():
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == doctor.licence_markdown()


def test_the_page_of_backends_is_the_descriptors():
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    assert page == backends_markdown() and all(f"| `{backend.name}` |" in page for backend in descriptors())


@pytest.mark.parametrize("backend", descriptors(), ids=lambda b: f"{b.stage}-{b.name}")
def test_descriptors_are_complete(backend):
    assert backend.stage in STAGES and backend.summary and backend.code_licence and backend.weights_licence and backend.commercial_reason
    assert backend.memory_gib > 0 and backend.batch >= 1 and backend.device in ("cpu", "cuda")
