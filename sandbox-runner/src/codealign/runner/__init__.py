"""What runs inside the isolated box: a supervisor, its fork servers, and the harness around each program.

Only `supervisor` and `job` need protobuf; everything that shares a process with a program is standard library.
"""
