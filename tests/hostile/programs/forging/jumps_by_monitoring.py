# tries: jumps over a test by the monitoring events of newer interpreters
# verdict: EXITED_EARLY or FAILED_ASSERTION

import sys

monitoring = getattr(sys, "monitoring", None)


def line(code, number):
    frame = sys._getframe(1)
    if code.co_filename == "<tests>" and number == 2:
        frame.f_trace = lambda *arguments: None
        try:
            frame.f_lineno = 3
        except ValueError:
            pass


if monitoring:
    monitoring.use_tool_id(3, "hostile")
    monitoring.register_callback(3, monitoring.events.LINE, line)
    monitoring.set_events(3, monitoring.events.LINE)


def f(x):
    return 0


# --- tests ---
assert f(0) == 0
assert f(1) == 2
assert f(0) == 0
