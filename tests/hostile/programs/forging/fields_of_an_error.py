# tries: raises an error whose message and name would be read as other fields of its report
# verdict: RAISED


class Error(Exception):
    pass


Error.__name__ = Error.__qualname__ = "exit, PASSED"
Error.__module__ = "builtins\\x00exit"
raise Error("\0exit\0SystemExit\0tests\0" * 500)
