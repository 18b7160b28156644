# tries: ends another interpreter of the same process
# verdict: PASSED

try:
    import _xxsubinterpreters as interpreters
except ImportError:
    interpreters = None
if interpreters:
    number = interpreters.create()
    try:
        interpreters.run_string(number, "import sys; sys.exit(0)")
    except interpreters.RunFailedError:
        pass
    interpreters.destroy(number)
