"""Fixtures every suite can use."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.rundir import RUN


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Path:
    """Return the test's own directory in the results; what is put there is kept.

    Outside a trapline run it is pytest's temporary directory.
    """
    run = request.config.stash.get(RUN, None)
    if run is None:
        # Asked for only here: pytest's tear-down of tmp_path does not survive a Ctrl-C.
        tmp_path: Path = request.getfixturevalue("tmp_path")
        return tmp_path
    place = run.evidence(request.node.nodeid)
    if ("evidence", str(place)) not in request.node.user_properties:
        request.node.user_properties.append(("evidence", str(place)))
    return place
