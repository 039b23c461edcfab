"""The bulk run as a Ray job: the same as ``svad-ray batch``, on the cluster that the job was submitted to.

    ray job submit --working-dir . -- python jobs/generate_avatars.py s3://bucket/people.parquet --out s3://bucket/avatars --log -

Exit status 0: every subject is committed or quarantined. 130: stopped; submit the same job again and it goes on. Other: the run itself cannot go on
(resources, model files, disk), said in one sentence.
"""

from svad_ray.cli import run_command
from svad_ray.commands.batch import batch

if __name__ == "__main__":
    run_command(batch)
