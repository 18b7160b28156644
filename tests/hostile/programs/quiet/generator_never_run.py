# tries: assertions in a generator, a coroutine and a lambda's function that never run
# verdict: NO_TESTS

# --- tests ---
def generate():
    assert 1 == 2
    yield


async def check():
    assert 1 == 2


later = lambda: check()
generate()
check().close()
