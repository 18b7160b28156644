# tries: assertions behind conditions that are never true
# verdict: NO_TESTS

# --- tests ---
if False:
    assert 1 == 2
while 0:
    assert 1 == 2
for _ in []:
    assert 1 == 2
if not __debug__:
    assert 1 == 2
