"""The HTTP service: avatars as jobs that any replica can answer for, restore, animate and render as calls. Knows nothing of Ray.

``config`` and ``tokens`` say who may do what, ``addresses`` and ``webhooks`` reach out safely, ``book`` keeps every request in the store, ``engine``
is what does the work (``local_engine`` on this machine, ``svad_ray.cluster`` on a Ray cluster), ``app`` puts HTTP in front.
"""

from svad_ray.service.book import AvatarBook
from svad_ray.service.engine import Busy, Engine, View
from svad_ray.service.records import AvatarOrder, AvatarRecord, Gone, Lease

__all__ = ["AvatarBook", "AvatarOrder", "AvatarRecord", "Busy", "Engine", "Gone", "Lease", "View"]
