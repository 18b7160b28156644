"""Code that runs inside the sandbox: a supervisor, its fork servers, and the harness around each program.

Only `supervisor` and `job` need protobuf. Everything that shares a process with a program uses only the standard
library.
"""
