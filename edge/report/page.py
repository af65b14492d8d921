"""The report of an export as one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedsys.edge.report.arena_figure import arena_picture
from fedsys.edge.report.figures import Figures, Layer
from fedsys.edge.report.text import calibration_pairs, headline, score_pairs
from fedsys.edge.report.wording import bytes_said, count_said, decibels, dimensions, percent
from fedsys.report.page import picture
from fedsys.report.wording import many

GOOD_SQNR = 20.0
"""dB below which a layer's noise is worth a look: a tenth of the signal's size."""


def render(figures: Figures) -> str:
    """The report, of whatever is known."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("fedsys.edge.report"), PackageLoader("fedsys.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("export.html.j2").render(**_story(figures))
    return text.encode("utf-8", "replace").decode()  # a folder's name may be no Unicode


def _story(figures: Figures) -> dict[str, Any]:
    return {
        "figures": figures,
        "status": _status(figures),
        "tiles": headline(figures),
        "flash": _shares(
            ("Weights and biases", figures.flash.weights),
            ("Tables and scales", figures.flash.tables),
            ("Code", figures.flash.code),
        ),
        "flash_total": bytes_said(figures.flash.total),
        "ram": _shares(
            ("Arena", figures.ram.arena),
            ("Input and output", figures.ram.io),
            ("Stack", figures.ram.stack),
        ),
        "ram_total": bytes_said(figures.ram.total),
        "arena": _arena(figures),
        "layers": _layers(figures.layers),
        "columns": {
            "sqnr": any(layer.sqnr is not None for layer in figures.layers),
            "instructions": any(layer.instructions is not None for layer in figures.layers),
        },
        "total": {
            "macs": count_said(figures.macs),
            "weights": bytes_said(sum(layer.weights for layer in figures.layers)),
            "parameters": f"{figures.parameters:,}",
        },
        "layer_count": many(len(figures.layers), "layer"),
        "score": score_pairs(figures.score) if figures.score else None,
        "calibration": (
            calibration_pairs(figures.calibration)[:-1] if figures.calibration else None
        ),
        "boards": [_board(fit) for fit in figures.boards],
        "good_sqnr": GOOD_SQNR,
    }


def _status(figures: Figures) -> tuple[str, str]:
    """The class and the text of the badge."""
    if figures.verified is False:
        return "failed", "verification failed"
    if figures.broken:
        return "failed", "over budget"
    return ("done", "verified") if figures.verified else ("unknown", "not verified")


def _shares(*parts: tuple[str, int | None]) -> list[dict[str, Any]]:
    """Parts of a whole for a bar; what is not known has no share."""
    whole = sum(size or 0 for _, size in parts) or 1
    return [
        {
            "label": label,
            "size": bytes_said(size) if size is not None else "not measured",
            "share": (size or 0) / whole,
            "colour": ("line0", "line4", "line2")[number],
        }
        for number, (label, size) in enumerate(parts)
    ]


def _arena(figures: Figures) -> Any:
    if not figures.places or not figures.ram.arena:
        return None
    drawn = arena_picture(figures.places, figures.ram.arena)
    return picture(drawn, "Map of the arena: tensors by place and by step")


def _layers(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """A line a layer; each number with its part of the largest in its column, for a bar."""
    tops = {
        name: max([getattr(layer, name) or 0 for layer in layers], default=0) or 1
        for name in ("macs", "weights", "activation", "instructions")
    }
    return [
        {
            "number": layer.index,
            "operator": layer.operator,
            "name": layer.name,
            "shape": dimensions(layer.shape),
            "cells": [
                (count_said(layer.macs) if layer.macs else "", layer.macs / tops["macs"]),
                (bytes_said(layer.weights) if layer.weights else "",
                 layer.weights / tops["weights"]),
                (bytes_said(layer.activation), layer.activation / tops["activation"]),
            ],
            "instructions": (count_said(layer.instructions),
                             (layer.instructions or 0) / tops["instructions"]),
            "sqnr": decibels(layer.sqnr),
            "sqnr_part": min(1.0, max(0.0, (layer.sqnr or 0.0) / 60)),
            "noisy": layer.sqnr is not None and layer.sqnr < GOOD_SQNR,
        }
        for layer in layers
    ]  # fmt: skip


def _board(fit: Any) -> dict[str, Any]:
    return {
        "name": fit.board.name,
        "core": fit.board.core,
        "note": fit.board.note,
        "fits": fit.fits,
        "parts": [
            {"of": bytes_said(room), "part": part, "percent": percent(part)}
            for room, part in ((fit.board.flash, fit.flash), (fit.board.ram, fit.ram))
        ],
    }
