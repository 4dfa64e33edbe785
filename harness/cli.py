"""The ``trapline`` command: thin typer commands over `harness.commands`.

Each command imports what it needs when it runs, so that ``trapline --help`` and a second
start stay fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.compare_app import EPILOG as COMPARE_EPILOG
from harness.commands.compare_app import compare
from harness.commands.groups import GROUPS
from harness.commands.matrix_app import EPILOG as MATRIX_EPILOG
from harness.commands.matrix_app import matrix
from harness.commands.mutants_app import EPILOG as MUTANTS_EPILOG
from harness.commands.mutants_app import mutants
from harness.commands.rules_app import EPILOG as RULES_EPILOG
from harness.commands.rules_app import rules
from harness.commands.shapes_app import EPILOG as SHAPES_EPILOG
from harness.commands.shapes_app import shapes
from harness.errors import ConfigError, HarnessError, MissingPackage

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING_PACKAGES = 3

app = typer.Typer(
    name="trapline",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Prove what an assigned PCI or AP device may touch: mapped, trapped, isolated, working.",
    epilog="TRAPLINE_CACHE names the cache (default ~/.cache/trapline); it may be removed at any "
    "time. Exit status: 0 all well, 1 something failed, 2 wrong usage, 3 a package is missing.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"trapline {version('trapline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that come before the command."""


@app.command(
    "test",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: trapline test --fast tests/model -k bar",
)
def _test(
    context: typer.Context,
    fast: Annotated[
        bool, typer.Option("--fast", help="Leave out the type check and the packaging tests.")
    ] = False,
) -> None:
    """Run the project's own tests: linters, types, layers, documents, behaviour.

    All other options and arguments go to pytest; paths are relative to the checkout.
    """
    from harness.commands import selftest

    raise typer.Exit(selftest.run(context.args, fast=fast))


@app.command(
    "run",
    epilog="Example: trapline run vfio_pci -k msix --qemu ./build/qemu-system-x86_64 -- -x. "
    "Exit status: that of pytest (1: something failed), but 2 if the selection matches no test.",
)
def _run(
    selection: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SELECTION]... [-- PYTEST ARGUMENTS]",
            help="Areas (vfio_pci), files, tests, rules (MAP-02) or series (MAP); default: all.",
        ),
    ] = None,
    keyword: Annotated[str, typer.Option("-k", metavar="EXPR", help="As in pytest.")] = "",
    marks: Annotated[str, typer.Option("-m", metavar="EXPR", help="As in pytest.")] = "",
    workers: Annotated[
        str | None,
        typer.Option(
            "-n",
            metavar="N|auto",
            help="Processes that run tests, each with a host of its own; auto: as cores and"
            " memory allow, none on a host that is there already. Default: auto for a whole run,"
            " 0 for a selection.",
        ),
    ] = None,
    qemu: Annotated[str | None, typer.Option(metavar="SPEC", help="QEMU under test.")] = None,
    l0_qemu: Annotated[
        str | None, typer.Option(metavar="SPEC", help="QEMU that runs virtual hosts.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(metavar="SPEC", help="Kernel of the host.")] = None,
    guest_kernel: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Kernel of the guest.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="URL", help="virtual, local or ssh://user@name.")
    ] = None,
    saved_state: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How virtual hosts are saved: auto, private, mapped, plain, off.",
        ),
    ] = None,
    no_saved_state: Annotated[
        bool, typer.Option("--no-saved-state", help="Every virtual host and guest boots.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Every area and test: vfio_ap too, and every pair of options."
            " With TRAPLINE_COMBINATIONS=3 every three of them, =all every set.",
        ),
    ] = False,
    results: Annotated[
        str | None, typer.Option(metavar="DIR", help="A directory per run goes here.")
    ] = None,
    capture: Annotated[
        bool, typer.Option("--capture/--no-capture", help="Hold back what tests print.")
    ] = True,
) -> None:
    """Run the suites, or a selection of them, and say where the results are."""
    from harness.commands import run

    words, pytest_arguments = run.split_words(selection or ())
    outcome = run.run_suites(
        run.RunRequest(
            selection=words,
            keyword=keyword,
            marks=marks,
            workers=run.parse_workers(workers),
            qemu=qemu,
            l0_qemu=l0_qemu,
            kernel=kernel,
            guest_kernel=guest_kernel,
            host=host,
            saved_state="off" if no_saved_state else saved_state,
            full=full,
            results=run.parse_results(results),
            capture=capture,
            pytest_arguments=pytest_arguments,
        )
    )
    if outcome.directory is not None:
        print(f"trapline: results in {outcome.directory}")
    raise typer.Exit(outcome.exit_status)


@app.command(
    "doctor",
    epilog="Exit status: 0 the default run works, whatever else is missing; 1 it does not.",
)
def _doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Boot a kernel to decide about KVM (up to 40 s).")
    ] = False,
) -> None:
    """Say what this computer can run, and what exactly would let it run the rest."""
    import json

    from harness.commands import doctor
    from harness.report import advice, doctor_view

    facts = doctor.examine(deep=deep)
    if as_json:
        print(json.dumps(doctor_view.as_dict(facts), indent=1))
    else:
        print("\n".join(doctor_view.as_lines(facts)))
    raise typer.Exit(EXIT_FAILED if advice.blockers(facts) else 0)


@app.command(
    "host",
    epilog="Example: trapline host --kernel debian:trixie-backports. Then, elsewhere: "
    "trapline run nested --host with the word it prints.",
)
def _host(
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Loopback port; 0: a free one.")
    ] = 0,
    qemu: Annotated[str | None, typer.Option(metavar="SPEC", help="QEMU under test.")] = None,
    l0_qemu: Annotated[
        str | None, typer.Option(metavar="SPEC", help="QEMU that runs the host.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(metavar="SPEC", help="Kernel of the host.")] = None,
) -> None:
    """Boot a virtual host and stay: log in, or point runs at it; Ctrl-C ends it."""
    from harness.commands import host

    with host.started(
        host.settings_of(qemu=qemu, l0_qemu=l0_qemu, kernel=kernel), port=port
    ) as there:
        print("\n".join(there.lines()), flush=True)
        host.stay(there.host)


@app.command(
    "restore",
    epilog="Exit status: 0 everything is back (or nothing was pending), 1 something is not.",
)
def _restore(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Only this host: local or ssh://user@name:port?key=FILE."
        ),
    ] = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Touch no host; drop what is pending (needs --host)."),
    ] = False,
) -> None:
    """Put back what ended runs left changed on physical hosts."""
    from harness.commands import restore

    report = restore.restore(host, drop=forget)
    print("\n".join(report.lines()))
    raise typer.Exit(0 if report.is_complete else EXIT_FAILED)


app.command("rules", epilog=RULES_EPILOG)(rules)


@app.command(
    "map",
    epilog="Example: trapline map unix:/run/vm.qmp --device nvme0. Pictures have one letter per "
    "page: = direct, T trapped, M mixed, . absent. Exit status: 0 all well, 1 a difference of "
    "--expect, or a QEMU that does not answer, 2 what was given cannot be read.",
)
def _map(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|unix:PATH",
            help="Text of 'info mtree' or memory-map.json; - is standard input; unix:PATH asks a "
            "running QEMU over QMP, without pausing it.",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="ID",
            help="Show the BARs of this device: its id (map taken with -o), or the name in its "
            "rows, such as 0000:03:00.0.",
        ),
    ] = None,
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FUNCTION.json",
            help="Compare with what must be, computed from this function; exit 1 on a difference.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    page: Annotated[
        str | None,
        typer.Option(
            "--page", metavar="BYTES", help="Page size of the host of QEMU (default 4096)."
        ),
    ] = None,
) -> None:
    """Show who answers at which address: tables of rows, and BARs page by page."""
    from rich.console import Console

    from harness.commands.map import page_size, show_map

    same = show_map(
        source,
        device=device,
        expect=expect,
        as_json=as_json,
        page=None if page is None else page_size(page),
        console=Console(),
    )
    raise typer.Exit(0 if same else EXIT_FAILED)


@app.command(
    "bench",
    epilog="Example: trapline bench cold --against virtme-ng. Exit status: 0 also when a demand "
    "is missed, 1 only when something broke; docs/bench.md says how to read the figures.",
)
def _bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... | timeline [RUN [TEST]]",
            help="Benchmarks (default: all); or draw where the time of a test of a run went "
            "(default: the longest of the last run).",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often each subject is measured.")
    ] = 5,
    seconds: Annotated[
        float | None,
        typer.Option("--time", metavar="SECONDS", help="Begin no round of a benchmark later."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER", help="Measure this peer too: virtme-ng (extra [bench])."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name the benchmarks.")] = False,
    qemu: Annotated[str | None, typer.Option(metavar="SPEC", help="QEMU under test.")] = None,
    l0_qemu: Annotated[
        str | None, typer.Option(metavar="SPEC", help="QEMU that runs virtual hosts.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(metavar="SPEC", help="Kernel of the host.")] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A directory per run goes to bench/ there.")
    ] = None,
) -> None:
    """Measure trapline beside its floors and its peers, in turns, in one run."""
    from harness.commands import bench, timeline
    from harness.commands.places import Places

    place = results or Places.find().results
    if listed:
        print("\n".join(bench.listing()))
        return
    if names and names[0] == timeline.NAME:
        run, test = (*names[1:3], "", "")[:2]
        for path in timeline.timeline(Path(run) if run else None, test, results=place):
            print(path)
        return
    from rich.console import Console

    from harness.bench.show import Progress, as_text

    progress = Progress(Console(stderr=True))
    try:
        report = bench.bench(
            bench.BenchRequest(
                names=tuple(names or ()),
                rounds=rounds,
                seconds=seconds,
                against=tuple(against or ()),
                options={"qemu": qemu, "l0_qemu": l0_qemu, "kernel": kernel},
                results=place,
            ),
            progress,
        )
    finally:
        progress.stop()
    if as_json:
        print(report.to_json())
    else:
        console = Console(width=None if sys.stdout.isatty() else 120)
        for part in as_text(report):
            console.print(part)
    raise typer.Exit(EXIT_FAILED if report.is_broken else 0)


app.command("matrix", epilog=MATRIX_EPILOG)(matrix)
app.command("compare", epilog=COMPARE_EPILOG)(compare)
app.command("shapes", epilog=SHAPES_EPILOG)(shapes)
app.command("mutants", epilog=MUTANTS_EPILOG)(mutants)

for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run the command line; a `HarnessError` becomes a message and an exit status."""
    from harness import process

    process.stop_like_ctrl_c(background=False)
    try:
        app(prog_name="trapline")
    except HarnessError as error:
        print(f"trapline: {error}", file=sys.stderr)
        if isinstance(error, ConfigError):
            sys.exit(EXIT_USAGE)
        sys.exit(EXIT_MISSING_PACKAGES if isinstance(error, MissingPackage) else EXIT_FAILED)
    except KeyboardInterrupt:
        print("trapline: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
