"""The launcher on systems that lack something, with fakes for all that would change them.

Each test has a checkout of its own (the launcher, a list of packages, a pyproject.toml) and a
search path that holds links to the real coreutils and the fakes below, nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# They take milliseconds; one that hangs must not hold up the others for the usual ten minutes.
pytestmark = pytest.mark.timeout(120)

LAUNCHER = Path(__file__).resolve().parents[2] / "trapline"
REAL = (
    *("sh", "cat", "cp", "cut", "date", "dirname", "env", "flock", "grep", "mkdir", "readlink"),
    *("rm", "sed", "sha256sum", "sleep", "tail", "tr", "true"),
)

# "exec cat", because dash 0.5.12 loses a SIGINT that comes while it forks: the child that is not
# yet cat drops it, and dash then waits for a child that was never told.
PYTHON = """#!/bin/sh
[ "$1" = -c ] || echo "python $*" >>"$CALLS"
case $1,$2 in
-c,*) [ ! -e "$FAKES/no-venv" ] && echo "3.12 $FAKES/python3" ;;
-m,venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
-m,pip)
    if [ -e "$FAKES/wait" ]; then echo started >"$FAKES/started"; exec cat "$FAKES/wait"; fi
    if [ -e "$FAKES/pip-says" ]; then cat "$FAKES/pip-says"; exit 1; fi ;;
-P,-m) shift 3; printf 'command:%s\\n' "$*" ;;
esac
"""
# Installs python3 when asked for python3-venv, else the program that the package is named after.
APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$CALLS"
case "$*" in *update*) rm -f "$FAKES/lists-are-old"; exit ;; esac
if [ -e "$FAKES/lists-are-old" ]; then echo "E: Unable to locate package"; exit 100; fi
for word; do
    case $word in
    python3-venv) rm -f "$FAKES/no-venv" ;;
    *-utils) cp "$FAKES/sh" "$FAKES/${word%-utils}" ;;
    esac
done
"""
ID = '#!/bin/sh\n[ -e "$FAKES/root" ] && echo 0 || echo 1000\n'
SUDO = """#!/bin/sh
echo "sudo $*" >>"$CALLS"
[ -e "$FAKES/may-sudo" ] || exit 1
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class System:
    """A checkout on a system made of fakes."""

    checkout: Path
    fakes: Path
    calls_file: Path
    cache: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def end(self) -> None:
        """Kill what a failed test left running."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(
        self, *arguments: str, launcher: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Begin to run the launcher, without a terminal."""
        process = subprocess.Popen(
            [launcher or self.checkout / "trapline", *arguments],
            env={
                "PATH": str(self.fakes),
                "HOME": str(self.cache.parent),
                "TRAPLINE_CACHE": str(self.cache),
                "CALLS": str(self.calls_file),
                "FAKES": str(self.fakes),
                **environment,
            },
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever starts us in the background of a script ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, launcher: Path | None = None, **environment: str
    ) -> tuple[int, str, str]:
        """Return exit status, output and errors of one run."""
        process = self.start(*arguments, launcher=launcher, **environment)
        out, err = process.communicate()
        return process.returncode, out, err

    def note(self, name: str, text: str = "") -> None:
        """Tell the fakes something."""
        (self.fakes / name).write_text(text)

    def add(self, name: str, text: str) -> None:
        """Add a program."""
        (self.fakes / name).write_text(text)
        (self.fakes / name).chmod(0o755)

    def calls(self, pattern: str) -> list[str]:
        """Return the calls of fakes that match *pattern*, and forget all of them."""
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.write_text("")
        return [line for line in lines if re.search(pattern, line)]

    def environments(self) -> list[Path]:
        """Return what is in the cache that looks like an environment."""
        return sorted(path for path in self.cache.glob("venv/*") if path.is_dir())


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A system with everything, in a path with a space, seen by a user without rights."""
    home = tmp_path / "a path"
    fakes = home / "bin"
    checkout = home / "check out"
    (checkout / "images").mkdir(parents=True)
    fakes.mkdir()
    for name in REAL:
        (fakes / name).symlink_to(str(shutil.which(name)))
    shutil.copy(LAUNCHER, checkout)
    (checkout / "pyproject.toml").write_text("[project]\n")
    (checkout / "images/packages.txt").write_text("# a comment\nsh dash\n")
    (home / "calls").write_text("")
    made = System(checkout, fakes, home / "calls", home / "ca che")
    for name, text in (("python3", PYTHON), ("apt-get", APT_GET), ("id", ID), ("sudo", SUDO)):
        made.add(name, text)
    yield made
    made.end()


@pytest.fixture
def bare(system: System) -> System:
    """The same without one package and without the venv module."""
    (system.checkout / "images/packages.txt").write_text("trapline-frob trapline-frob-utils\n")
    system.note("no-venv")
    return system


def test_first_start_makes_the_environment_and_runs_the_command(system: System) -> None:
    status, out, err = system.run("run", "two words", "--x")

    assert (status, out) == (0, "command:run two words --x\n"), err
    assert [path.name[-5:] for path in system.environments()] == ["-3.12"]
    assert f"--editable {system.checkout}[dev]" in system.calls("install")[0]


def test_second_start_only_runs_the_command(system: System) -> None:
    system.run("--version")
    system.calls("")

    assert system.run("--version") == (0, "command:--version\n", "")
    assert system.calls("") == ["python -P -m harness.cli --version"]


def test_other_dependencies_get_another_environment(system: System) -> None:
    system.run("--version")
    (system.checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    system.run("--version")

    assert len(system.environments()) == 2


def test_environment_whose_python_is_gone_is_made_again(system: System) -> None:
    system.run("--version")
    (system.environments()[0] / "bin/python").unlink()

    assert system.run("--version")[:2] == (0, "command:--version\n")


def test_launcher_works_through_a_link_from_elsewhere(system: System) -> None:
    link = system.fakes / "trapline"
    link.symlink_to(system.checkout / "trapline")

    status, out, err = system.run(
        "run", launcher=link, TRAPLINE_CACHE="", XDG_CACHE_HOME=str(system.cache)
    )

    assert (status, out) == (0, "command:run\n"), err
    assert (system.cache / "trapline/venv").is_dir()


def test_root_installs_packages(bare: System) -> None:
    bare.note("root")

    status, out, err = bare.run("run")

    assert (status, out) == (0, "command:run\n"), err
    assert bare.calls("^(apt-get|sudo)") == [
        "apt-get --yes -o DPkg::Lock::Timeout=300 install --no-install-recommends"
        " trapline-frob-utils python3-venv"
    ]


def test_user_with_sudo_installs_packages(bare: System) -> None:
    bare.note("may-sudo")

    status, out, err = bare.run("run")

    assert (status, out) == (0, "command:run\n"), err
    assert bare.calls("^sudo -n env .* install --no-install-recommends trapline-frob-utils")


@pytest.mark.parametrize("sudo", [True, False], ids=["sudo refuses", "no sudo"])
def test_user_without_rights_gets_the_line_to_ask_for(bare: System, sudo: bool) -> None:
    if not sudo:
        (bare.fakes / "sudo").unlink()

    status, out, err = bare.run("run")

    assert (status, out) == (3, "")
    assert "  apt-get install --no-install-recommends trapline-frob-utils python3-venv\n" in err
    assert not bare.cache.exists()
    assert not bare.calls("^apt-get|^python")


def test_other_distributions_get_the_names_of_the_programs(bare: System) -> None:
    (bare.fakes / "apt-get").unlink()
    bare.note("root")

    status, _, err = bare.run("run")

    assert status == 3
    assert "missing on this system: trapline-frob python3\n" in err
    assert not bare.cache.exists()


def test_old_package_lists_are_read_anew_once(bare: System) -> None:
    bare.note("root")
    bare.note("lists-are-old")

    assert bare.run("run")[0] == 0
    assert [call.split()[4] for call in bare.calls("^apt-get")] == ["install", "update", "install"]


def test_packages_that_cannot_be_installed_end_it(bare: System) -> None:
    bare.note("root")
    bare.add("apt-get", "#!/bin/sh\necho 'E: Unable to fetch some archives'\nexit 100\n")

    status, _, err = bare.run("run")

    assert status == 3
    assert "said: E: Unable to fetch some archives" in err
    assert not bare.environments()


def test_package_that_vanishes_later_is_noticed(system: System) -> None:
    system.run("run")
    (system.checkout / "images/packages.txt").write_text("trapline-frob trapline-frob-utils\n")

    assert system.run("run")[0] == 3
    assert system.run("--help")[:2] == (0, "command:--help\n")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: Temporary failure in name resolution", "PIP_INDEX_URL"),
        ("ERROR: [Errno 28] No space left on device", "make room"),
        ("ERROR: something else", "read the log"),
    ],
)
def test_failing_pip_is_explained_and_leaves_nothing(
    system: System, said: str, advice: str
) -> None:
    system.note("pip-says", f"Collecting things\n{said}\n")

    status, out, err = system.run("run")

    assert (status, out) == (1, "")
    assert f"said: {said}" in err
    assert advice in err
    assert not system.environments()


def test_two_at_once_make_one_environment(system: System) -> None:
    os.mkfifo(system.fakes / "wait")
    os.mkfifo(system.fakes / "started")
    first = system.start("run", "first")
    (system.fakes / "started").read_text()  # pip runs, under the lock
    second = system.start("run", "second")
    assert second.stderr
    assert "waiting for another" in second.stderr.readline()
    (system.fakes / "wait").write_text("go on")

    assert "command:run first\n" in first.communicate()[0]
    assert "command:run second\n" in second.communicate()[0]
    assert len(system.calls("-m pip")) == 1


def test_start_after_a_killed_one_waits_for_what_it_left_running(system: System) -> None:
    os.mkfifo(system.fakes / "wait")
    os.mkfifo(system.fakes / "started")
    first = system.start("run", "first")
    (system.fakes / "started").read_text()  # pip runs
    first.kill()  # and goes on
    first.wait()
    second = system.start("run", "second")

    assert second.stderr
    assert "waiting for another" in second.stderr.readline()
    assert len(system.environments()) == 1
    assert len(system.calls("-m pip")) == 1
    with (system.fakes / "wait").open("w"):
        (system.fakes / "wait").unlink()
    assert "command:run second\n" in second.communicate()[0]
    assert len(system.calls("-m pip")) == 1


def test_what_apt_starts_does_not_keep_the_lock(bare: System) -> None:
    bare.note("root")
    installs = (bare.fakes / "apt-get").read_text().removeprefix("#!/bin/sh\n")
    bare.add("apt-get", f"#!/bin/sh\n(: >&9) 2>/dev/null && echo 9 >>$CALLS\n{installs}")

    assert bare.run("run")[0] == 0
    assert bare.calls("^9|install")[0] != "9"


def test_command_holds_its_environment_and_notes_the_use(system: System) -> None:
    system.run("run")
    complete = system.environments()[0] / "complete"
    os.utime(complete, (1, 1))
    system.add("python3", PYTHON.replace("-P,-m)", '-P,-m) flock -xn "$HELD" echo free;'))
    shutil.copy(system.fakes / "python3", complete.parent / "bin/python")

    out = system.run("run", HELD=str(complete))[1]

    assert out == "command:run\n"
    assert complete.stat().st_mtime > 1


def test_environment_that_is_being_removed_is_waited_for_and_made_again(system: System) -> None:
    system.run("run")
    complete = system.environments()[0] / "complete"
    with (system.cache / "venv/lock").open("a") as lock, complete.open() as held:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX)
        late = system.start("run")
        assert late.stderr
        assert "waiting for another" in late.stderr.readline()
        complete.unlink()

    assert "command:run\n" in late.communicate()[0]
    assert complete.exists()


def test_cache_that_cannot_be_written_is_refused_with_a_way_on(system: System) -> None:
    (system.cache / "venv/lock").mkdir(parents=True)  # refused to root too

    status, out, err = system.run("run")

    assert (status, out) == (2, "")
    assert err.startswith(f"trapline: cannot write in {system.cache}/venv\n  said: ")
    assert "  next: name a directory that can be written with TRAPLINE_CACHE\n" in err
    assert "lock" not in err


def test_cache_that_cannot_be_made_is_refused_with_a_way_on(system: System) -> None:
    system.cache.write_text("")

    status, _, err = system.run("run")

    assert status == 2
    assert err.startswith(f"trapline: cannot make {system.cache}/venv\n  said: ")
    assert "  next: name a directory that can be written with TRAPLINE_CACHE\n" in err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_interrupt_leaves_nothing_half_done(system: System, number: int, status: int) -> None:
    os.mkfifo(system.fakes / "wait")
    os.mkfifo(system.fakes / "started")
    process = system.start("run")
    (system.fakes / "started").read_text()
    assert system.environments()

    os.killpg(process.pid, number)

    _, err = process.communicate()
    assert process.returncode == status, err
    assert not system.environments()
    (system.fakes / "wait").unlink()
    assert system.run("run")[0] == 0


def test_environment_left_by_a_killed_start_is_not_used(system: System) -> None:
    system.run("run")
    (system.environments()[0] / "complete").unlink()
    system.calls("")

    assert system.run("run")[0] == 0
    assert len(system.calls("-m pip")) == 1


def test_python_of_choice_must_fit(system: System) -> None:
    status, _, err = system.run("run", TRAPLINE_PYTHON="/gone/python")

    assert status == 2
    assert "TRAPLINE_PYTHON=/gone/python" in err
    assert not system.cache.exists()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_teaches_before_anything_is_there(bare: System, arguments: tuple[str, ...]) -> None:
    status, out, _ = bare.run(*arguments)

    assert status == 0
    for word in ("./trapline test", "TRAPLINE_CACHE", "TRAPLINE_PYTHON", "images/packages.txt"):
        assert word in out
    assert not bare.cache.exists()
