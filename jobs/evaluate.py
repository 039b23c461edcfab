"""One of the evaluations on the cluster that the job runs in, a subject a task (docs/evaluate.md).

    ray job submit --working-dir . -- python jobs/evaluate.py thuman s3-mount/THuman2.0 --out s3://bucket/thuman --cpus 4 --gpus 1

The arguments are those of `svad-ray evaluate`; run it again after an interruption: what is measured stays. Exit status 9: subjects are missing.
"""

import sys

from svad_ray.cli import main

PROTOCOLS = ("synthetic", "thuman", "people-snapshot", "folder", "ablations")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROTOCOLS:
        sys.exit(f"{__doc__}\nExpected first: {', '.join(PROTOCOLS)}")
    sys.argv = ["svad-ray", "evaluate", *sys.argv[1:], "--cluster"]
    main()
