# tries: raises an error whose traceback ends in a line that no file and no message has
# verdict: RAISED

import sys
import types

raise ValueError("x").with_traceback(types.TracebackType(None, sys._getframe(), 0, -5))
