"""The page: complete, self-contained, the same for the same content, and drawn by a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest

from carvana_ens.report.content import (
    Candidate,
    Estimate,
    Fact,
    MemberRow,
    Picture,
    Report,
    TrainingFold,
    Tried,
)
from carvana_ens.report.page import page, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "link"}


def jpeg(colour):
    file = io.BytesIO()
    PIL.Image.new("RGB", (60, 30), colour).save(file, "JPEG")
    return file.getvalue()


FULL = Report(
    title="cars <b>& more</b>",
    subtitle="8 out-of-fold photos",
    facts=[Fact("honest Dice", "0.99712", "95 %: 0.99700 to 0.99720")],
    metric="mean Dice",
    threshold=0.5,
    remarks=["A remark."],
    members=[
        MemberRow("a", "unet 80x112", 2, 2 / 3, 0.99, [0.6, 0.7], Estimate(0.001, 0.0005, 0.002), False, 0.5, 0.2),
        MemberRow("b", "imported", 1, 1 / 3, 0.98, [0.3, 0.4], Estimate(-0.001), True),
    ],
    curves={"tuned": [(0.1, 0.9), (0.5, 0.99), (0.9, 0.9)], "equal weights": [(0.1, 0.8), (0.9, 0.85)]},
    agreement=[[1.0, 0.25], [0.25, 1.0]],
    ensembles=[Candidate(["a"], 0.99, 0.5, True), Candidate(["a", "b"], 0.995, 0.8, True)],
    tried=[Tried("logit", Estimate(0.0001, -0.001, 0.001), False, "its interval covers 0")],
    tta=[Tried("hflip: a over b", Estimate(0.001), True)],
    histories={"a": [TrainingFold(0, [(1, 0.5), (2, 0.4)], [(1, 0.6), (2, 0.5)], [(2, 0.9)])]},
    worst=[Picture("car_01", "Dice 0.9000", jpeg("red"))],
    odd=[Picture("car_99", "area 80 % of the picture", jpeg("blue"))],
    sources={"masks": "abc"},
)
BARE = Report("one member", "1 photo", [Fact("tuned", "0.9")], "mean Dice", 0.5)


class Reader(HTMLParser):
    """Text, attributes, and whether tags close what they opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.words = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.images += [found["src"]] if tag == "img" else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_everything_is_on_the_page_and_nothing_is_loaded():
    text = page(FULL)
    found = Reader(text)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        assert link.startswith(("data:image/", "#"))
        assert not link.startswith("#") or link[1:] in found.ids
    assert all(target in found.ids for target in re.findall(r"url\(#([^)]+)\)", text))
    assert [base64.b64decode(image.split(",")[1]) for image in found.images] == [jpeg("red"), jpeg("blue")]
    words = " ".join(found.words)
    for told in ("cars <b>& more</b>", "0.99712", "A remark.", "66.7 %", "+0.00100 (+0.00050 to +0.00200)", "could go",
                 "its interval covers 0", "hflip: a over b", "Dice 0.9000", "area 80 %", "mean Dice, out-of-fold",
                 "seconds a photo", "0.25", "abc"):  # fmt: skip
        assert told in words, told
    for place in ("members", "threshold", "tried", "tta", "cost", "worst", "look", "training", "sources"):
        assert place in found.ids


def test_what_is_empty_is_left_out():
    found = Reader(page(BARE))
    assert found.ids == []
    assert found.images == []


def test_the_same_content_gives_the_same_text(tmp_path):
    assert page(FULL) == page(FULL)
    write_report(FULL, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(FULL)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to draw the page")
def test_a_browser_draws_it(tmp_path):
    write_report(FULL, tmp_path / "report.html")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    shot = tmp_path / "page.png"
    command = [BROWSER, "--headless", "--no-sandbox", *quiet, "--window-size=1100,3000", f"--screenshot={shot}"]
    subprocess.run([*command, (tmp_path / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    with PIL.Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((254, 0, 0), (0, 0, 254), (0, 114, 178)):  # both pictures, and the bars of a figure
        assert (np.abs(pixels - colour).max(axis=1) < 4).sum() > 300, colour
