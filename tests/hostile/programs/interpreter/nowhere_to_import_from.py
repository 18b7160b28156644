# tries: leaves the tests nowhere to import from
# verdict: RAISED

import sys

sys.meta_path.clear()
sys.path_hooks.clear()
sys.path.clear()
sys.path_importer_cache.clear()
# --- tests ---
assert True
import wave
