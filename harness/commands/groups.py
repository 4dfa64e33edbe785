"""Commands of ``trapline`` that have commands below them, by name."""

from __future__ import annotations

from harness.commands.ap_app import app as ap_app
from harness.commands.device_app import app as device_app
from harness.commands.images_app import app as images_app
from harness.commands.profile_app import app as profile_app
from harness.commands.state_app import app as state_app

GROUPS = {
    "ap": ap_app,
    "device": device_app,
    "images": images_app,
    "profile": profile_app,
    "state": state_app,
}
"""In the order of the help."""
