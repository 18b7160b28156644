# tries: changes a mock's own assertions, so that every call was as they say
# verdict: FAILED_ASSERTION or EXITED_EARLY

from unittest import mock

for name in dir(mock.NonCallableMock):
    if name.startswith("assert_"):
        setattr(mock.NonCallableMock, name, lambda *arguments, **settings: None)


def f(call):
    call(2)


# --- tests ---
from unittest.mock import Mock

call = Mock()
f(call)
call.assert_called_once_with(1)
