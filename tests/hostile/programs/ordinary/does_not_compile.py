# tries: nothing; a missing colon
# verdict: SYNTAX_ERROR

def f(x)
    return x
