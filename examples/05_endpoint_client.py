"""A client of the endpoints with Python's standard library alone: ask for an avatar, follow it, take the files home. docs/service.md has it in curl.

svad-ray serve --store out/service              prints a token at its first start
python examples/05_endpoint_client.py http://127.0.0.1:8000 TOKEN photo.jpg out/mine
"""

import json
import sys
import urllib.request
import uuid
from pathlib import Path

url, token, photo, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])


def call(path, data=None, **headers):
    """The open answer of the service; errors are printed as the service says them."""
    request = urllib.request.Request(url + path, data=data, headers={"Authorization": f"Bearer {token}", **headers})
    try:
        return urllib.request.urlopen(request, timeout=600)
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())["error"]
        sys.exit(f"{error.code} {told['found']} (expected: {told['expected']}; try: {told['remedy']})")


boundary = uuid.uuid4().hex
parts = [
    f'--{boundary}\r\nContent-Disposition: form-data; name="consent"\r\n\r\nthe person in the photo agreed\r\n'.encode(),
    f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{photo.name}"\r\n\r\n'.encode() + photo.read_bytes() + b"\r\n",
    f"--{boundary}--\r\n".encode(),
]
key = {"Idempotency-Key": uuid.uuid4().hex}  # sent again after a lost answer, it makes no second avatar
avatar = json.load(call("/v1/avatars", b"".join(parts), **{"Content-Type": f"multipart/form-data; boundary={boundary}"}, **key))

kind = ""
for line in call(f"/v1/avatars/{avatar['id']}/events"):
    name, _, value = line.decode().strip().partition(": ")
    if name == "event":
        kind = value
    elif name == "data" and kind == "progress":
        print(f"{json.loads(value)['step']:20} {json.loads(value)['share']:4.0%}")
state = json.load(call(f"/v1/avatars/{avatar['id']}"))
if state["state"] != "done":
    sys.exit(f"{state['state']}: {(state['reason'] or {}).get('found', '')}")

for entry in json.load(call(f"/v1/avatars/{avatar['id']}/artefacts"))["files"]:
    target = out / entry["name"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(call(entry["href"]).read())
    print(f"{entry['bytes']:10} {target}")
