"""Read by every Python process that the tests start, as this folder is on its path: a quarter of the time of importing
torch and transformers goes to looking for cycles in what stays."""

import gc

gc.set_threshold(100_000, 20, 20)
