"""Spans in the trace event format, for Perfetto and ``chrome://tracing``. Pure.

Source: "Trace Event Format", Google, 2016: complete events (``ph`` X) with times in
microseconds, metadata events (M) that name processes and threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.timeline import Span


def chrome_trace(spans: Sequence[Span]) -> dict[str, object]:
    """Return the object to write as JSON: a process per worker, a thread per thread."""
    workers = {name: at for at, name in enumerate(dict.fromkeys(s.worker for s in spans), 1)}
    threads = {
        key: at for at, key in enumerate(dict.fromkeys((s.worker, s.thread) for s in spans), 1)
    }
    began = min((span.began for span in spans), default=0.0)
    events: list[dict[str, object]] = []
    for worker, pid in workers.items():
        events.append(_name("process_name", worker, pid=pid, tid=0))
    for (worker, thread), tid in threads.items():
        events.append(_name("thread_name", thread, pid=workers[worker], tid=tid))
    for span in spans:
        arguments = {"failed": span.failed, "test": span.test}
        events.append(
            {
                "name": span.text,
                "cat": "test" if span.test else "step",
                "ph": "X",
                "ts": round((span.began - began) * 1e6, 3),
                "dur": round(span.seconds * 1e6, 3),
                "pid": workers[span.worker],
                "tid": threads[span.worker, span.thread],
                "args": {name: value for name, value in arguments.items() if value},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, name: str, *, pid: int, tid: int) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
