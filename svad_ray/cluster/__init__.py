"""The only part that imports ray: it hosts the same stage objects that the local runner runs.

``session`` joins or starts a cluster, ``config`` says what gets which resources, ``preflight`` checks that before the first task, ``hosts`` holds
stages in workers, ``workers`` and ``bulk`` run a manifest, ``placement`` runs long tasks in placement groups, ``serving`` and ``conductor`` are the
endpoints, ``metrics`` and ``view`` show.
"""

import os
import sys

# Ray reads these when it is imported, and its own defaults depend on what lies in the home folder: they are decided here, before any import of it.
# Once it is imported its authentication is fixed, and a cluster that is started with another one destroys every actor at once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
