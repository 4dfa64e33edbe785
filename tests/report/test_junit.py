"""JUnit: a broken lab is an <error>."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from harness.report.junit import tell_errors_from_failures

TEXT = """<testsuites><testsuite errors="0" failures="2" tests="2">
<testcase name="a"><properties><property name="verdict" value="error"/></properties>
<failure message="HostError: x">x</failure></testcase>
<testcase name="b"><failure message="page 3">y</failure></testcase>
</testsuite></testsuites>"""


def test_only_tests_with_the_verdict_error_are_turned(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    file.write_text(TEXT)

    turned = tell_errors_from_failures(file)

    suite = ET.parse(file).find("testsuite")
    assert suite is not None
    assert turned == 1
    assert (suite.get("errors"), suite.get("failures")) == ("1", "1")
    assert [suite.find(f"testcase[@name='a']/{tag}") is None for tag in ("error", "failure")] == [
        False,
        True,
    ]
    assert suite.find("testcase[@name='b']/failure") is not None
