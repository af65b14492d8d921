"""From a figure to SVG text, and from there into a page, in the page's fonts and colours."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from fedsys.report.style import AXIS, BLUE, COLOURS, GRID, INK, QUIET

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

# Colours of the figures -> properties of the page, which has them for light and for dark.
_PAINTS = {
    "#000000": "ink",
    INK: "ink",
    QUIET: "quiet",
    AXIS: "axis",
    GRID: "grid",
    BLUE: "mark",
    "#ffffff": "card",
    **{colour: f"line{number}" for number, colour in enumerate(COLOURS)},
}
_DRAWN = {"svg", "g", "defs", "path", "use", "text", "tspan", "image", "clipPath", "rect", "circle"}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in no XML


def figure_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to put into HTML: the same text for the same figure.

    Text stays text, to be found and read out, and is drawn in the reader's fonts, whatever letters
    ours have; no date, no random names, no XML prolog.
    """
    import matplotlib

    drawn = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedsys"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    text = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", drawn.getvalue())
    return text[text.index("<svg") :]


def embedded(svg: str) -> Markup | None:
    """An SVG that `figure_svg` drew as a part of a page, in the page's fonts and colours.

    None where it has in it what `figure_svg` does not draw: the text comes from a file, and goes
    into the page unescaped.
    """
    from markupsafe import Markup

    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata.*?</metadata>", "", svg, flags=re.DOTALL)
    if not _harmless(svg):
        return None
    used = set(re.findall(r'"(?:url\()?#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda it: it[0] if it[1] in used else "", svg)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'style="[^"]*"', _page_style, svg)
    return Markup(re.sub(r"\n\s+", "\n", svg))


def _page_style(found: re.Match[str]) -> str:
    style = re.sub(r"font-family:[^;\"]*;?\s*", "", found[0])
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda it: f"var(--{_PAINTS[it[0]]})" if it[0] in _PAINTS else it[0],
        style,
    )


def _harmless(svg: str) -> bool:
    """Whether the SVG only draws: no scripts, nothing from elsewhere."""
    if "<!" in svg or "<?" in svg:
        return False
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError:
        return False
    return all(_draws(element) for element in root.iter())


def _draws(element: ElementTree.Element) -> bool:
    space, _, name = element.tag.rpartition("}")
    if space != "{http://www.w3.org/2000/svg" or name not in _DRAWN:
        return False
    for key, value in element.items():
        key = key.rpartition("}")[2].lower()
        if key.startswith("on") or re.search(r"url\((?!#)|\\|@import|expression", value.lower()):
            return False
        if key in ("href", "src") and not value.startswith(("#", "data:image/png;base64,")):
            return False
    return True
