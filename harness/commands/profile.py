"""``trapline profile``: device profiles, and devices held against them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness import paths
from harness.commands.host import settings_of
from harness.errors import ConfigError
from harness.guest.keys import make_key
from harness.guest.look import look
from harness.guest.system import System
from harness.host.physical import connect
from harness.lab.parts import Parts, check_host_word
from harness.lab.profiles import all_profiles, load_profile
from harness.lab.stand_in import stand_in
from harness.model.pci import Bdf
from harness.model.profile import Answer, DeviceProfile, Finding, SeenDevice, check


@dataclass(frozen=True, slots=True)
class Checked:
    """A device held against its profile."""

    profile: DeviceProfile
    where: str
    """What was looked at, for people."""
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Say whether no item differs."""
        return all(one.answer is not Answer.DIFFERS for one in self.findings)


def check_profile(name: str, *, host: str | None = None, bdf: str | None = None) -> Checked:
    """Hold a device against the profile *name*.

    :param host: as ``trapline run --host``; None: as the settings say. On a virtual host what
        stands for the device is made; elsewhere nothing is changed.
    :param bdf: the physical function; None: the first with its id.
    :raise ConfigError: the profile or the address is none.
    :raise MissingDevice: the host does not have the device.
    """
    profile, place = load_profile(name), _address(bdf)
    settings = settings_of(host=host)
    check_host_word(settings.host)
    if settings.host != "virtual":
        with _system(settings.host) as system:
            seen = look(system, profile, place)
            return Checked(profile, _where(settings.host, seen), check(profile, seen))
    if place is not None:
        raise ConfigError(
            "--bdf names a device of a host that is there",
            hint="on a virtual host the device is made; give --host local or --host ssh://…",
        )
    parts = Parts(settings)
    parts.gather()
    directory = paths.runtime_dir()
    try:
        with stand_in(parts, profile, key=make_key(directory), evidence=directory) as seen:
            return Checked(profile, _where(_kind(profile), seen), check(profile, seen))
    finally:
        paths.remove_runtime_dir(directory)


def _kind(profile: DeviceProfile) -> str:
    if profile.stand_in.shapes:
        return "models in Python, in front of a real Linux, on a virtual host"
    return f"QEMU's {profile.stand_in.qemu}, on a virtual host"


def _where(host: str, seen: SeenDevice) -> str:
    first = seen.physical or next(iter(seen.virtual), None)
    place = f"{first.function.bdf}, " if first is not None else ""
    return f"{place}{len(seen.virtual)} virtual functions; {host}"


def _address(text: str | None) -> Bdf | None:
    try:
        return None if text is None else Bdf.parse(text)
    except ValueError as error:
        raise ConfigError(f"--bdf: {error}") from error


@contextlib.contextmanager
def _system(word: str) -> Iterator[System]:
    transport = connect(word)
    try:
        yield System(transport, level="L0" if word == "local" else "L1")
    finally:
        transport.close()


__all__ = ["Checked", "all_profiles", "check_profile", "load_profile"]
