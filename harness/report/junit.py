"""Correct pytest's JUnit file: what broke in the body of a test is an error, not a failure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from harness.model.rule import Verdict


def tell_errors_from_failures(file: Path) -> int:
    """Turn ``<failure>`` into ``<error>`` where the test's verdict is ``error``.

    pytest itself goes by the phase alone. The verdict is found in the property that the plugin
    gives each such test.

    :return: how many were turned.
    """
    tree = ET.parse(file)
    turned = 0
    for suite in tree.iter("testsuite"):
        here = 0
        for case in suite.iter("testcase"):
            if _property(case, "verdict") != Verdict.ERROR:
                continue
            for failure in case.findall("failure"):
                failure.tag = "error"
                here += 1
        _shift(suite, "failures", -here)
        _shift(suite, "errors", here)
        turned += here
    if turned:
        tree.write(file, encoding="utf-8", xml_declaration=True)
    return turned


def _property(case: ET.Element, name: str) -> str:
    found = (
        entry.get("value", "")
        for entry in case.findall("properties/property")
        if entry.get("name") == name
    )
    return next(found, "")


def _shift(suite: ET.Element, count: str, by: int) -> None:
    suite.set(count, str(int(suite.get(count, "0")) + by))
