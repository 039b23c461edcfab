"""The documentation as a site, and its pages against the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text())
        assert not loaded, f"{page}: {loaded}"
    assert (tmp_path / "site/troubleshooting/index.html").exists()


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert [page.name for page in PAGES if page.name not in nav] == []


def test_messages_of_the_troubleshooting_page_are_the_codes():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "svad_ray").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # strings over several lines
    unknown = []
    for line in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| you see", "| the avatar's back", "| a run ends", "| 401")):
            symptom = re.sub(r", in the table.*| \(422\)$", "", line.split(" | ")[0][2:])
            parts = [part.strip(" ,:") for part in re.split(r"\.\.\.| animate |\d+|'[^']*'|: ", symptom)]
            unknown += [part for part in parts if len(part) > 3 and part not in code and part not in ("provenance verify", "No space left on device")]
    assert not unknown
