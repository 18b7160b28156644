# tries: raises an exception with ten thousand causes, and one group inside another
# verdict: RAISED

error = ValueError(0)
for number in range(10_000):
    cause, error = error, ValueError(number)
    error.__cause__ = cause
for _ in range(500):
    error = ExceptionGroup("group", [error])
raise error
