# tries: changes how numbers and text are read and written
# verdict: PASSED

import decimal
import locale

for name in ("tr_TR.UTF-8", "C.UTF-8", "C"):
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        pass
decimal.getcontext().prec = 1
decimal.getcontext().traps[decimal.Inexact] = True
# --- tests ---
assert float("1.5") == 1.5
assert "I".lower() == "i"
