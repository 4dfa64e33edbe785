"""Hypothesis judges what a test finds, never how long it took on a busy machine."""

from hypothesis import settings

if settings.get_current_profile_name() == "default":  # with CI set, it has its own
    settings.register_profile("default", settings.get_profile("default"), deadline=None)
    settings.load_profile("default")
