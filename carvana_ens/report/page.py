"""A report as one HTML page: figures, pictures and style stand in it."""

from __future__ import annotations

import base64
import re
from importlib.resources import files
from itertools import count
from pathlib import Path

from carvana_ens import __version__
from carvana_ens.files import replacing
from carvana_ens.report import figures
from carvana_ens.report.content import Estimate, Picture, Report


def write_report(report: Report, path: Path) -> None:
    """Replaces ``path`` with the page.

    Raises:
        CarvanaEnsError: it cannot be written.
    """
    text = page(report)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(report: Report) -> str:
    """The page's text. What has the same content gives the same text."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"gain": _gain, "data": _data}
    template = environment.from_string(files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(report=report, figures=_figures(report), version=__version__)


def _figures(report: Report) -> dict[str, str]:
    """SVG by place on the page; ids are made different, since all figures share one page."""
    drawn = {}
    if report.curves:
        drawn["curves"] = figures.threshold_curves(report)
    if report.members:
        drawn["shares"] = figures.shares(report.members)
    bought = [(member.name, member.buys) for member in report.members if member.buys is not None]
    if bought:
        drawn["buys"] = figures.gains(bought, "gain in honest Dice by having it beside the others")
    if report.ensembles:
        drawn["costs"] = figures.costs(report.ensembles)
    if report.agreement:
        drawn["agreement"] = figures.agreement([member.name for member in report.members], report.agreement)
    if report.tried:
        drawn["tried"] = figures.gains([(one.name, one.gain) for one in report.tried], "gain in honest Dice")
    drawn |= {f"history {name}": figures.history(folds) for name, folds in report.histories.items()}
    numbers = count()
    return {place: _own_ids(svg, f"f{next(numbers)}-") for place, svg in drawn.items()}


def _own_ids(svg: str, prefix: str) -> str:
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'((?:xlink:)?href="#)', rf"\1{prefix}", svg)
    return svg.replace("url(#", f"url(#{prefix}")


def _gain(estimate: Estimate) -> str:
    """A gain with its sign, and its interval where there is one."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:+.5f}"
    return f"{estimate.mean:+.5f} ({estimate.low:+.5f} to {estimate.high:+.5f})"


def _data(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{base64.b64encode(picture.image).decode()}"
