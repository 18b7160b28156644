# tries: raises an exception that fails whatever is asked of it
# verdict: RAISED


class Meta(type):
    def __getattribute__(cls, name):
        raise KeyError(name)

    def __instancecheck__(cls, instance):
        raise KeyError("instance")


class Resisting(Exception, metaclass=Meta):
    def __str__(self):
        raise SystemExit(0)

    __repr__ = __str__

    def __getattribute__(self, name):
        raise Resisting


raise Resisting
