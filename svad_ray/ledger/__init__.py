"""What was asked for, what was tried and what became of it, kept in the store: any process can read it and a restart forgets nothing.

``requests`` names one subject's order, ``attempts`` counts tries and quarantines, ``limits`` ends work that hangs or grows, ``manifest`` reads lists
of subjects, ``status`` writes the table of a bulk run.
"""

from svad_ray.ledger.attempts import ATTEMPTS, Attempt, Exhausted, Ledger, Quarantine
from svad_ray.ledger.requests import SubjectRequest, folder_name

__all__ = ["ATTEMPTS", "Attempt", "Exhausted", "Ledger", "Quarantine", "SubjectRequest", "folder_name"]
