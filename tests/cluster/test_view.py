"""What a person and a machine see of a run."""

import io
import json

from rich.console import Console

from svad_ray.cluster.view import View
from svad_ray.ledger.status import COMMITTED, QUARANTINED, TRAINING, WAITING, SubjectStatus


def statuses():
    return [
        SubjectStatus("a", "", "k/a", COMMITTED),
        SubjectStatus("b", "", "k/b", QUARANTINED, step="train", reason="no end after 5 s\nTry: more", attempts=2),
        SubjectStatus("c", "", "k/c", TRAINING),
        SubjectStatus("d", "", "k/d", WAITING),
    ]


def shown(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    with View(4, console=console) as view:
        view.frames = 40
        view.update(statuses(), force=True)
    return out.getvalue()


def test_a_line_without_a_terminal_says_how_things_stand():
    said = shown(False)
    assert "1 waiting, 1 training, 1 committed, 1 quarantined of 4" in said and "frames/s" in said and "to go" in said


def test_a_terminal_shows_states_and_reasons():
    said = shown(True)
    assert "committed" in said and "quarantined 1 x no end after 5 s" in said and "Try" not in said


def test_events_are_json_lines_with_subject_and_attempt():
    lines = io.StringIO()
    view = View(4, json_to=lines, quiet=True)
    view.event("quarantined", statuses()[1], step="train")
    view.event("began", run="x")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["event"], first["subject"], first["attempt"], first["state"], first["step"]) == ("quarantined", "b", 2, "quarantined", "train")
    assert second["run"] == "x" and second["time"] > 1.6e9
