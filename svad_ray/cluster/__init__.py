"""The only part that imports ray: it hosts the same stage objects that the local runner runs.

``session`` joins or starts a cluster, ``config`` says what gets which resources, ``preflight`` checks that before the first task, ``hosts`` holds
stages in workers, ``placement`` runs long tasks in placement groups, ``bulk`` puts them together for a manifest, ``serving`` and ``conductor`` for
endpoints, ``metrics`` counts.
"""
