"""Federated calibration: ranges of many clients, merged."""

from __future__ import annotations

from fedsys.edge.ranges import Ranges, calibrate

__all__ = ["Ranges", "calibrate"]
