"""The pytest plugin: hooks and options; the work is done in `harness.report`.

It sleeps, whatever project pytest runs for, until the option ``--results`` names a place for
results, or the ini value ``trapline_results`` does and a conftest says what is judged
(``pytest_trapline_subject``). Then each run gets a directory there, each
test one of four verdicts, and marks are checked against the catalogue of rules.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness import hookspecs, process
from harness.errors import ConfigError, HarnessError
from harness.model.rule import Verdict
from harness.report import marks, progress, space, verdict
from harness.report.finish import finish_run
from harness.report.results import SAID, Phases
from harness.report.rundir import RUN, RunDirectory
from harness.report.start import UNKNOWN, Start
from harness.report.steps_log import StepsLog
from harness.report.summary import count, counts_line, interrupted_line
from harness.report.warnings_log import WarningsLog, read_warnings
from harness.rules import load_rules, select
from harness.settings import SETTINGS, SUBJECT, Settings, find_file, load_settings
from harness.spread import hooks as spread
from harness.spread import workers
from harness.testing import hearing

pytest_plugins = ("harness.fixtures",)

WORKERS = pytest.StashKey[workers.Workers]()
"""What ``-n auto`` has come to."""

_RESULTS = "trapline_results"
_PROBLEMS = pytest.StashKey[list[Verdict]]()
_CITED = pytest.StashKey[int]()
"""How many properties a test had before it was run."""
_LISTING = ("collectonly", "showfixtures", "show_fixtures_per_test", "markers", "help", "version")
_OPTIONS = {
    "qemu": "QEMU under test: name of a build or path",
    "l0_qemu": "QEMU that runs virtual hosts: name of a build or path",
    "kernel": "kernel of the host: name or path",
    "guest_kernel": "kernel of the guest: name or path; empty: that of the host",
    "host": "where the QEMU under test runs: virtual, local or ssh://user@name",
    "saved_state": "how virtual hosts are saved: auto, private, mapped, plain; off: they boot",
}

Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; those of the subjects end in `harness.settings.Settings`."""
    group = parser.getgroup("trapline", "trapline: device passthrough")
    for name, about in _OPTIONS.items():
        default = Settings.model_fields[name].default
        group.addoption(
            f"--{name.replace('_', '-')}",
            dest=f"trapline_{name}",
            metavar=name.rpartition("_")[2].upper(),
            help=f"{about} (default: {default})" if default else about,
        )
    group.addoption(
        "--results", dest=_RESULTS, metavar="DIR", help="a directory per run goes here"
    )
    group.addoption(
        "--rule",
        dest="trapline_rules",
        action="append",
        default=[],
        metavar="ID",
        help="run only tests that cite this rule (MAP-02) or series (MAP); may be repeated",
    )
    group.addoption(
        "--leave-out-full",
        dest="trapline_leave_out_full",
        action="store_true",
        help="leave out tests marked full, as a run of everything by default does",
    )
    parser.addini(_RESULTS, "a directory per run goes here; empty: trapline sleeps", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks of our own."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """See whether the user told xdist how to spread, before it puts in its default for ``-n``."""
    said = config.getoption("dist", "no") != "no" or config.getoption("distload", default=False)
    config.stash[spread.IS_OURS] = not said
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Decide what ``-n auto`` is in a trapline run, unless xdist's own variable does."""
    if _base(config) is None or os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    found = config.stash[WORKERS] = workers.automatic(_settings(config).host)
    return found.count


def _settings(config: pytest.Config) -> Settings:
    options = {name: config.getoption(f"trapline_{name}") for name in _OPTIONS}
    file = find_file(config.invocation_params.dir, config.rootpath)
    try:
        return load_settings(options, os.environ, file)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def _base(config: pytest.Config) -> Path | None:
    """Return where the directory of the run belongs, None if this is no trapline run."""
    given, usual = config.getoption(_RESULTS), config.getini(_RESULTS)
    if given:
        return config.invocation_params.dir / str(given)
    # The usual place is for runs that judge something: the project's own tests keep nothing.
    judging = bool(config.hook.pytest_trapline_subject.get_hookimpls())
    return config.rootpath / str(usual) if usual and judging else None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Wake up in a trapline run; first, so that the report plugins see our paths."""
    for declaration in marks.DECLARATIONS:
        config.addinivalue_line("markers", declaration)
    config.stash[SETTINGS] = _settings(config)
    worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
    base = _base(config)
    if worker is not None:
        if not worker.get("trapline_run"):
            return
        process.stop_like_ctrl_c(background=False)
        config.stash[RUN] = RunDirectory(Path(worker["trapline_run"]))
        config.stash[SUBJECT] = worker["trapline_subject"]
    elif base is None:
        return
    elif not any(config.getoption(name, default=False) for name in _LISTING):
        try:
            run = config.stash[RUN] = RunDirectory.create(base, datetime.now())
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        spreading = spread.Spreading(config, run.path)
        config.pluginmanager.register(spreading, "trapline-spreading")
        config.pluginmanager.register(Controller(config, run, spreading), "trapline-controller")
    config.pluginmanager.register(Tests(config), "trapline-tests")
    if RUN in config.stash:
        name = os.environ.get("PYTEST_XDIST_WORKER", "")
        for kept in (StepsLog, WarningsLog):
            plugin = kept(config.stash[RUN].path, worker=name)
            config.pluginmanager.register(plugin, f"trapline-{kept.__name__}")
    config.pluginmanager.register(spread.Collecting(), "trapline-collecting")
    config.pluginmanager.register(Start(), "trapline-start")


class Tests:
    """Hooks for wherever tests are collected and run: one process, or each worker."""

    __test__ = False

    def __init__(self, config: pytest.Config) -> None:
        self._run = config.stash.get(RUN, None)
        self._is_short = config.getoption("tbstyle") == "auto"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Check every mark against the catalogue; keep what ``--rule`` asks for."""
        try:
            wanted = {
                rule.id for name in config.getoption("trapline_rules") for rule in select(name)
            }
            cited = [marks.note(item, load_rules()) for item in items]
        except ConfigError as error:
            items.clear()
            if not hasattr(config, "workeroutput"):
                raise pytest.UsageError(str(error)) from error
            config.workeroutput["trapline_usage"] = str(error)
            return
        short = config.getoption("trapline_leave_out_full")
        chosen = [
            not (wanted and wanted.isdisjoint(rules))
            and not (short and item.get_closest_marker(marks.FULL))
            for item, rules in zip(items, cited, strict=True)
        ]
        if dropped := [item for item, keep in zip(items, chosen, strict=True) if not keep]:
            items[:] = [item for item, keep in zip(items, chosen, strict=True) if keep]
            config.hook.pytest_deselected(items=dropped)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Name the subject in the properties of the test; begin anew if it is run again."""
        item.stash[_PROBLEMS] = []
        del item.user_properties[item.stash.setdefault(_CITED, len(item.user_properties)) :]
        facts = item.config.stash.get(SUBJECT, {}).items()
        item.user_properties += [(f"subject.{name}", value) for name, value in facts]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Keep in the properties of the test what its negative controls made the checks say."""
        with hearing() as heard:
            try:
                return (yield)
            finally:
                item.user_properties += [(SAID, text) for text in heard]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Decide the verdict of a phase that went wrong, and put its message first.

        What goes to the properties does so before pytest copies them into the report.
        """
        problems = item.stash.get(_PROBLEMS, [])
        if call.when == "teardown" and problems and verdict.of_parts(problems) is Verdict.ERROR:
            item.user_properties.append(("verdict", str(Verdict.ERROR)))
        if call.excinfo is not None and self._run is not None:
            verdict.keep_traceback(call.excinfo, item, self._run)
        report = yield
        if call.excinfo is None:
            # pytest fails a test for its failed subtests later, when this report is long made
            if call.when == "call" and problems:
                verdict.attach(report, verdict.of_parts(problems))
            return report
        error = call.excinfo.value
        if verdict.hides_interrupt(error):
            item.session.shouldstop = "interrupted"
        if verdict.hidden_by_xfail(report, error):
            report.outcome = "failed"
            del report.wasxfail
        if report.failed:
            in_body = call.when == "call"
            found = verdict.verdict_of_exception(error) if in_body else Verdict.ERROR
            verdict.attach(report, found)
            if in_body:
                item.stash[_PROBLEMS].append(found)
            if self._is_short:
                verdict.put_message_first(report, call.excinfo, item.path)
        return report


class Controller:
    """Hooks for the process that the user sees: header, progress, results."""

    def __init__(
        self, config: pytest.Config, run: RunDirectory, spreading: spread.Spreading
    ) -> None:
        if not hasattr(config.option, "report_log"):
            raise pytest.UsageError("trapline needs the plugin pytest-reportlog")
        self._config, self._run, self._spreading = config, run, spreading
        self._began = datetime.now().astimezone()
        self._report_log = Path(config.option.report_log or run.report_log)
        self._junit = Path(config.getoption("xmlpath", None) or run.junit)
        config.option.report_log = os.fspath(self._report_log)
        config.option.xmlpath = os.fspath(self._junit)
        self._running: dict[str, Phases] = {}
        self._progress: progress.Plain | None = None
        self._session: pytest.Session | None = None
        self._usage = ""
        self._interrupted = False
        self._last_line = ""

    def pytest_report_header(self) -> list[str]:
        """Say where results go and what is judged."""
        facts = [f"{name}: {value}" for name, value in self._subject().items()]
        if found := self._config.stash.get(WORKERS, None):
            facts.append(f"workers: {found.count or 'none'} ({found.why})")
        return [f"trapline results: {self._run.path}", *facts]

    def _subject(self) -> dict[str, str]:
        stash = self._config.stash
        if SUBJECT not in stash:
            known = stash[SUBJECT] = {}
            try:
                for facts in self._config.hook.pytest_trapline_subject(config=self._config):
                    known |= {name: str(value) for name, value in facts.items()}
            except ConfigError as error:
                raise pytest.UsageError(str(error)) from error
            except HarnessError as error:
                known[UNKNOWN] = str(error)
        return stash[SUBJECT]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where the run is and what is judged."""
        node.workerinput["trapline_run"] = os.fspath(self._run.path)
        node.workerinput["trapline_subject"] = self._subject()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear from a worker that a mark is wrong."""
        self._usage = self._usage or getattr(node, "workeroutput", {}).get("trapline_usage", "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Begin to show progress, unless pytest was asked to be quiet or verbose."""
        self._session = session
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or not reporter.showheader:
            self._subject()  # nobody else asks before tests run
        if reporter is not None and self._config.get_verbosity() == 0:
            reporter.showfspath = False
            self._progress = progress.begin(self._config, reporter)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show what runs now."""
        if self._progress is not None:
            total = self._session.testscollected if self._session else 0
            self._progress.started(nodeid, total, self._spreading.worker_of(nodeid))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Show a test that has ended, and end the run where no report can be kept any more."""
        try:
            yield
        except OSError as error:
            if not space.is_full(error):
                raise
            self._config.stash[space.FULL] = True
            pytest.exit(str(space.none_left(self._run.path).summary))
        finally:
            self._show(report)

    def _show(self, report: pytest.TestReport) -> None:
        """Show a test that has ended (a crashed worker sends no tear-down)."""
        phases = self._running.setdefault(report.nodeid, Phases(report.nodeid))
        if phases.join(report):
            result = self._running.pop(report.nodeid).result()
            if self._progress is not None:
                self._progress.finished(result)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, Status, Status]:
        """Count a broken lab as an error whatever the phase; leave the line to our progress."""
        category, letter, word = yield
        if category == "failed" and verdict.verdict_of(report) is Verdict.ERROR:
            category, letter, word = "error", "E", ("ERROR", {"red": True})
        if self._progress is not None:
            return category, "", ""
        return category, letter, word

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note that somebody ended the run; pytest ends it so too, for a broken module."""
        is_told = self._session is not None and self._session.shouldstop == "interrupted"
        by_pytest = isinstance(excinfo.value, pytest.Session.Interrupted)
        is_key = isinstance(excinfo.value, KeyboardInterrupt)
        self._interrupted |= is_key and (is_told or not by_pytest)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, None, None]:
        """Write the results, after the report plugins have written theirs.

        Last of the wrappers: before the terminal prints its summary.
        """
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        try:
            yield
            self._write_results(session)
        except KeyboardInterrupt:
            self._interrupted = True
            session.exitstatus = pytest.ExitCode.INTERRUPTED
            self._write_results(session)
        except OSError as error:
            if not space.is_full(error):
                raise
            self._config.stash[space.FULL] = True
        if self._config.stash.get(space.FULL, False):
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        if self._usage:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _write_results(self, session: pytest.Session) -> None:
        with process.undisturbed() as heard:
            results = finish_run(
                self._run,
                report_log=self._report_log,
                junit=self._junit,
                began=self._began,
                command=self._config.invocation_params.args,
                exit_status=int(session.exitstatus),
                collected=session.testscollected,
                interrupted=self._interrupted,
                settings=self._config.stash[SETTINGS],
                subject=self._subject(),
            )
            self._last_line = f"trapline: {counts_line(count(results))}"
            if self._interrupted or heard:
                said = interrupted_line(len(results), session.testscollected)
                self._last_line += f"; {said}"
        if heard:
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say the four numbers and where the rest is."""
        if self._usage:
            terminalreporter.write_line(f"ERROR: {self._usage}", red=True)
        for line in read_warnings(self._run.path):
            terminalreporter.write_line(f"WARNING {line}", yellow=True)
        if self._last_line:
            terminalreporter.write_line(f"{self._last_line}; {self._run.summary}")
