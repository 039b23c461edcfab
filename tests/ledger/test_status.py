"""The table of a run."""

from svad_ray.ledger.status import COMMITTED, QUARANTINED, SubjectStatus, read_status, write_status

FACTS = {
    "stages": {"avatar": {"wall_s": 2.5, "cpu_s": 4.0, "peak_gib": 1.25}, "fit": {"wall_s": 1.0, "cpu_s": 1.0, "peak_gib": 1.0}},
    "quality": {"fit_residual_px": 3.5},
    "photo_sha256": "ab",
    "warnings": ["feet near the border", "small"],
}


def test_rows_of_all_states_read_back(tmp_path):
    done = SubjectStatus("ä", "x.png", "k/1", COMMITTED, attempts=1, facts=FACTS)
    bad = SubjectStatus("b", "y.png", "k/2", QUARANTINED, step="train", reason="hangs", attempts=2)
    write_status(str(tmp_path), [bad, done])
    write_status(str(tmp_path), [done, bad])
    first, second = read_status(str(tmp_path))
    assert (first["subject_id"], first["seconds"], first["cpu_s.avatar"], first["quality.fit_residual_px"]) == ("ä", 3.5, 4.0, 3.5)
    assert first["warnings"] == "feet near the border; small"
    assert (second["state"], second["reason"], second["attempts"], second["seconds.avatar"]) == (QUARANTINED, "hangs", 2, None)
    assert [p.name for p in tmp_path.iterdir()] == ["status.parquet"]


def test_no_table_is_no_rows(tmp_path):
    assert read_status(str(tmp_path)) == []
