# tries: raises an exception whose class says that it is SystemExit
# verdict: RAISED


class Disguised(Exception):
    __class__ = SystemExit
    code = 0


raise Disguised("not an exit")
