"""Compatibility: know that a row can't work before a byte is downloaded, and say why."""

from builder.compat.check import check, minimum_driver, nearest_to, sms_for
from builder.compat.judge import judge
from builder.compat.nearest import nearest
from builder.compat.verdict import Conflict, Verdict

__all__ = [
    "Conflict",
    "Verdict",
    "check",
    "judge",
    "minimum_driver",
    "nearest",
    "nearest_to",
    "sms_for",
]
