"""Many people from and to a bucket: photos are listed, made into avatars, exported as labelled frames, and one person is forgotten.

The bucket is an emulator on this machine; with AWS_ENDPOINT_URL and credentials of your own the same addresses are a real one.

pip install "moto[server]" s3fs boto3
python examples/06_bulk_on_a_bucket.py [PEOPLE]      about three minutes on two cores for two people
"""

import io
import os
import subprocess
import sys

import boto3
import fsspec
from moto.server import ThreadedMotoServer
from PIL import Image

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
boto3.client("s3").create_bucket(Bucket="people")

from svad_ray.evaluate.synthetic.demo import demo_person  # noqa: E402

SMALL = ["animate.frames=12", "animate.size=192", "avatar.gaussians=3000", "avatar.iterations=10", "restore.budget_s=0", "restore.plain=lanczos"]
names = [f"person-{i}" for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2)]
for seed, name in enumerate(names):
    picture = io.BytesIO()
    Image.fromarray(demo_person(seed).photo.image).save(picture, "PNG")
    with fsspec.open(f"s3://people/photos/{name}.png", "wb") as stream:
        stream.write(picture.getvalue())


def svad_ray(*words):
    """The command line, as a person uses it."""
    subprocess.run([sys.executable, "-m", "svad_ray", *words], check=True)


try:
    sets = [word for value in SMALL for word in ("--set", value)]
    svad_ray("batch", "s3://people/photos", "--out", "s3://people/out", "--consent", "nobody's likeness", *sets)
    script = os.path.join(os.path.dirname(__file__), "..", "jobs", "export_frames.py")
    subprocess.run([sys.executable, script, "s3://people/out", "s3://people/frames", "--local", "--format", "webdataset"], check=True)
    svad_ray("forget", names[0], "--out", "s3://people/out", "--frames", "s3://people/frames", "--yes")
    fs = fsspec.filesystem("s3")
    print(f"{len(fs.find('people/out'))} objects of {len(names) - 1} people are left in the bucket")
finally:
    server.stop()
