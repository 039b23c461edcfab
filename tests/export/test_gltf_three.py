"""The mesh file in three.js: its own loader, its own skinning, its own renderer, in a headless Chromium."""

import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest
from gltf_reader import Gltf
from test_gltf import body, dance, dressed  # noqa: F401 (fixtures)

from svad_ray.export.gltf import write_mesh

pytestmark = pytest.mark.slow

THREE = "three@0.180.0"
PAGE = """<!doctype html><body style="margin:0">
<script type="importmap">{"imports": {
  "three": "./node_modules/three/build/three.module.js", "three/addons/": "./node_modules/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
renderer.setSize(300, 300);
document.body.append(renderer.domElement);
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(40, 1, 0.1, 50);
scene.background = new THREE.Color(0xffffff);
const file = await new GLTFLoader().loadAsync("m.glb");
scene.add(file.scene);
const mixer = new THREE.AnimationMixer(file.scene);
mixer.clipAction(file.animations.find((a) => a.name === "dance")).play();
let mesh;
file.scene.traverse((o) => { if (o.isSkinnedMesh) { mesh = o; o.frustumCulled = false; } });
window.at = (time, step) => {
  mixer.setTime(time);
  scene.updateMatrixWorld(true);
  const point = new THREE.Vector3(), middle = new THREE.Vector3(), found = [];
  for (let i = 0; i < mesh.geometry.attributes.position.count; i += step) {
    mesh.getVertexPosition(i, point).applyMatrix4(mesh.matrixWorld);
    found.push(point.toArray());
    middle.add(point);
  }
  middle.divideScalar(found.length);
  camera.position.set(middle.x, middle.y, middle.z + 3);
  renderer.render(scene, camera);
  return found;
};
document.title = "ready";
</script>"""


@pytest.fixture
def folder(tmp_path):
    if not shutil.which("npm"):
        pytest.skip("no npm, from which three.js comes")
    if subprocess.run(["npm", "install", "--silent", THREE], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip(f"{THREE} cannot be installed")
    (tmp_path / "index.html").write_text(PAGE)
    return tmp_path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


def test_three_loads_the_mesh_and_moves_it_as_we_do(browser, dressed, body, folder):  # noqa: F811
    track = dance(body_id=body.id)
    write_mesh(dressed, folder / "m.glb", body=body, clips={"dance": track})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    page = browser.new_page(viewport={"width": 300, "height": 300})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_function("document.title === 'ready'", timeout=60_000)
        file, pictures = Gltf(folder / "m.glb"), []
        for time in (0.0, 2.5 / track.fps):
            found = np.array(page.evaluate(f"at({time}, 7)"))
            np.testing.assert_allclose(found, file.posed("dance", time)[::7], atol=2e-4)
            picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR).astype(int)
            assert 0.005 < (picture.min(-1) < 240).mean() < 0.6  # somebody is seen, and is not all
            pictures.append(picture)
        assert (np.abs(pictures[0] - pictures[1]).max(-1) > 40).mean() > 0.01 and not wrong
    finally:
        page.close()
        server.shutdown()
        thread.join()
        server.server_close()
