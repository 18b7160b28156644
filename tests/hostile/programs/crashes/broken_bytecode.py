# tries: runs a code object whose bytecode reads outside its constants
# verdict: CRASHED


def f():
    return 1


f.__code__ = f.__code__.replace(co_code=bytes([100, 255, 83, 0]) * 8, co_consts=())
f()
