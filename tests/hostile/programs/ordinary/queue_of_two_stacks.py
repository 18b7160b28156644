# tries: nothing; a class, and an error that the tests expect
# verdict: PASSED


class Queue:
    def __init__(self):
        self._in, self._out = [], []

    def put(self, item):
        self._in.append(item)

    def get(self):
        if not self._out:
            self._in.reverse()
            self._in, self._out = [], self._in
        if not self._out:
            raise IndexError("empty")
        return self._out.pop()


# --- tests ---
queue = Queue()
for n in range(3):
    queue.put(n)
assert [queue.get() for _ in range(3)] == [0, 1, 2]
try:
    queue.get()
    assert False
except IndexError:
    pass
