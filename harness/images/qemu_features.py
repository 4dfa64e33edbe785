"""What a QEMU build can do, asked once and kept."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import process
from harness.errors import LaunchFailed
from harness.images.manifest import write_json
from harness.images.qemu_help import parse_devices, parse_names, parse_properties

LONGEST_ANSWER = 60.0
"""Seconds to wait for ``-version`` or a help text, on a busy machine."""


def ask(
    argv_prefix: Sequence[str], env: Mapping[str, str], words: Sequence[str], label: str
) -> subprocess.CompletedProcess[str]:
    """Run QEMU with *words* and return what it said.

    :raise LaunchFailed: it cannot be started, was killed by a signal, or does not end.
    """
    argv = [*argv_prefix, *words]
    try:
        child = process.start(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=process_environment(env)
        )
    except OSError as error:
        raise LaunchFailed(
            f"QEMU {label} cannot be started", exit_status=None, stderr=str(error)
        ) from error
    try:
        out, complaint = child.communicate(timeout=LONGEST_ANSWER)
    except subprocess.TimeoutExpired as error:
        raise LaunchFailed(
            f"QEMU {label} did not end within {LONGEST_ANSWER:g} s when run with "
            f"{' '.join(words)}",
            exit_status=None,
            stderr=(error.stderr or b"").decode(errors="replace"),
        ) from error
    finally:
        process.kill(child)
    said = complaint.decode(errors="replace")
    if child.returncode < 0:
        raise LaunchFailed(
            f"QEMU {label} was killed by signal {-child.returncode} when run with "
            f"{' '.join(words)}",
            exit_status=child.returncode,
            stderr=said,
        )
    return subprocess.CompletedProcess(argv, child.returncode, out.decode(errors="replace"), said)


class QemuFeatures:
    """Devices, properties, accelerators and backends of one QEMU build.

    Answers are asked of the binary when first needed and kept by the build's identity.

    :param kept: file with the answers so far.
    """

    def __init__(
        self, argv_prefix: Sequence[str], env: Mapping[str, str], label: str, kept: Path
    ) -> None:
        self._argv_prefix = tuple(argv_prefix)
        self._env = dict(env)
        self._label = label
        self._kept = kept

    @property
    def devices(self) -> frozenset[str]:
        """Return every name that ``-device`` takes."""
        return frozenset(self._answer("devices", ["-device", "help"]))

    @property
    def accelerators(self) -> frozenset[str]:
        """Return what it is built with (``kvm``, ``tcg``); whether KVM works is the host's."""
        return frozenset(self._answer("accelerators", ["-accel", "help"]))

    @property
    def netdevs(self) -> frozenset[str]:
        """Return the network backends (``user``, ``tap``, …)."""
        return frozenset(self._answer("netdevs", ["-netdev", "help"]))

    @property
    def machines(self) -> frozenset[str]:
        """Return the machine types, versioned ones and aliases."""
        return frozenset(self._answer("machines", ["-machine", "help"]))

    def has_device(self, name: str) -> bool:
        """Say whether ``-device name`` exists."""
        return name in self.devices

    def device_properties(self, name: str) -> frozenset[str]:
        """Return the properties of a device; empty if there is no such device."""
        if not self.has_device(name):
            return frozenset()
        return frozenset(self._answer(f"device {name}", ["-device", f"{name},help"]))

    def has_property(self, device: str, name: str) -> bool:
        """Say whether ``-device device,name=…`` exists."""
        return name in self.device_properties(device)

    def _answer(self, question: str, words: Sequence[str]) -> Sequence[str]:
        known = read_facts(self._kept)
        answer = known.get(question)
        if isinstance(answer, list):
            return [str(word) for word in answer]
        done = ask(self._argv_prefix, self._env, words, self._label)
        if done.returncode != 0:
            raise LaunchFailed(
                f"QEMU {self._label} does not answer {' '.join(words)}",
                exit_status=done.returncode,
                stderr=done.stderr,
            )
        parse = parse_names
        if question == "devices":
            parse = parse_devices
        elif question.startswith("device "):
            parse = parse_properties
        found = sorted(parse(done.stdout))
        add_fact(self._kept, question, found)
        return found


def read_facts(kept: Path) -> dict[str, object]:
    """Read the answers that were kept; none if there are none or the file is damaged."""
    try:
        data = json.loads(kept.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def add_fact(kept: Path, question: str, answer: object) -> None:
    """Keep one more answer; of two processes that add at once one may have to ask again."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, read_facts(kept) | {question: answer})


def process_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with a build's own variables."""
    return {**os.environ, **env}
