"""The report as a reader's browser takes it: complete, self-contained, and safe with any text."""

import re
from base64 import b64decode
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from svad_ray.export.report import ReportInputs, StageCost, Table, write_report
from svad_ray.subject import Perception


class Page(HTMLParser):
    """Tags, addresses and headings of a page; unclosed tags are found."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.scripts = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
            if self.open[-1] == "h2":
                self.headings.append(data)


def perception(height: int, width: int) -> Perception:
    rng = np.random.default_rng(0)
    points = rng.uniform(10, [width - 10, height - 10], (133, 2)).astype(np.float32)
    mask = np.zeros((height, width), np.float32)
    mask[10:-10, 10:-10] = 1
    ones = np.ones(133, np.float32)
    return Perception(points, ones, mask, points[:33], ones[:33], np.zeros((33, 3), np.float32), None, np.zeros((2, 21, 3), np.float32), 0.9, 1)


def full(frames: int = 30, side: int = 256) -> ReportInputs:
    """Everything that a report can show; noise, which compresses worst."""
    clip = np.random.default_rng(1).integers(0, 255, (frames, side, side, 3), np.uint8)
    return ReportInputs(
        name="Jane",
        photo=np.full((300, 200, 3), 90, np.uint8),
        perception=perception(300, 200),
        generated=clip,
        identity=clip,
        restored=clip,
        remarks=["", "fusion refused", "fusion refused", "fusion refused", *[""] * (frames - 5), "fusion refused"],
        fit_overlays=list(clip[:6]),
        turntable=clip,
        costs=[StageCost("perceive", 1.5, 2.0, 0.5), StageCost("avatar", 70.0, 130.0, 2.25, "resumed")],
        warnings=["The face is small"],
        provenance={"commercial_use": True, "commercial_reason": "all of it allows", "consent": "asked", "models": {"a": "1", "b": "2"}, "seed": 7},
        metrics=[Table(("View", "PSNR"), (("front", "31.4"),), "Against the truth")],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(full(), path)
    return path.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(page):
    sources = Page(page).sources
    assert len(sources) > 5 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import|fetch\(|XMLHttpRequest", re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page))
    assert "default-src 'none'" in page


def test_every_section_is_there(page):
    found = Page(page)
    assert not found.open
    sections = ["Measured quality", "The clip, stage by stage", "Body fit", "Remarks on frames", "Time and memory", "Where it comes from"]
    assert found.headings == sections
    text = " ".join(found.text)
    for word in ("Jane", "The face is small", "31.4", "1–3, 29", "1 min 12 s", "resumed", "Commercial use: yes", "asked", "Generated", "Restored"):
        assert word in text, word


def test_pictures_are_pictures(page):
    for source in Page(page).sources:
        image = cv2.imdecode(np.frombuffer(b64decode(source.split(",", 1)[1]), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and min(image.shape[:2]) > 50


def test_the_worst_case_stays_small_enough_to_send(tmp_path):
    smooth = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 255, (96, 32, 32, 3), np.uint8), 16, 1), 16, 2)
    write_report(ReportInputs(name="x", photo=np.zeros((4000, 3000, 3), np.uint8), turntable=smooth, restored=smooth), tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < 8e6


def test_what_is_not_known_is_left_out(tmp_path):
    write_report(ReportInputs(name="x", photo=np.zeros((60, 60, 3), np.uint8)), tmp_path / "r.html")
    found = Page((tmp_path / "r.html").read_text())
    assert found.headings == [] and found.scripts == 0 and not found.open
    assert "No quality remarks" in " ".join(found.text)


def test_text_cannot_become_markup(tmp_path):
    evil = '<script>alert("x")</script>'
    inputs = ReportInputs(name=evil, photo=np.zeros((60, 60, 3), np.uint8), warnings=[evil], provenance={evil: evil, "consent": evil})
    write_report(inputs, tmp_path / "r.html")
    found = Page((tmp_path / "r.html").read_text())
    assert found.scripts == 0 and "".join(found.text).count(evil) >= 4
