"""The seed of what is drawn anew in each run; pytest's header shows it, `WATTWORK_TEST_SEED` repeats it."""

import os
import secrets

FRESH_SEED = int(os.environ.get("WATTWORK_TEST_SEED") or secrets.randbits(32))
