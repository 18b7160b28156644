# tries: assertions in strings and comments
# verdict: NO_TESTS

# --- tests ---
"""
assert 1 == 2
"""

text = "assert 1 == 2"
# assert 1 == 2
