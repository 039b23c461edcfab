// A camera that turns about a point: drag turns, wheel or two fingers come nearer, right button or Shift shifts. Axes as OpenCV's: y down, z forward.

const FOV = (30 * Math.PI) / 180; // of the shorter way across the person's picture

export class Camera {
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed });
    this.view = new Float32Array(16); // by columns
    this.pointers = new Map();
    this.follow = [0, 0, 0]; // the person's own path
    this.reset([0, 0.9, 0], 1.8);
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => this.pointers.delete(e.pointerId));
    canvas.addEventListener("pointermove", (e) => this.moved(e));
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      const before = this.distance;
      this.zoom(Math.exp(e.deltaY * (e.deltaMode ? 0.04 : 0.0012)));
      const share = 1 - before / this.distance; // what lies below the pointer stays there
      this.shift((e.offsetX - canvas.clientWidth / 2) * share, (e.offsetY - canvas.clientHeight / 2) * share);
    }, { passive: false });
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("dblclick", () => this.home());
  }

  /** Look at `target` (metres) so that `size` metres fit into the picture's height. */
  reset(target, size) {
    this.start = { target, size };
    this.home();
  }

  home() {
    this.look(this.start.target, this.start.size, 0.06);
  }

  /** From the front at `target`, with `size` metres in the picture's height. */
  look(target, size, pitch) {
    Object.assign(this, { yaw: 0, pitch, target: [...target], distance: size / 2 / Math.tan(FOV / 2) });
    this.changed();
  }

  zoom(factor) {
    this.distance = Math.min(20, Math.max(0.25, this.distance * factor));
    this.changed();
  }

  moved(e) {
    const last = this.pointers.get(e.pointerId);
    if (!last) return;
    const other = [...this.pointers].find(([id]) => id !== e.pointerId)?.[1];
    const dx = e.clientX - last[0], dy = e.clientY - last[1];
    if (other) {
      const before = Math.hypot(last[0] - other[0], last[1] - other[1]), now = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
      this.zoom(before / Math.max(now, 1));
      this.shift(dx / 2, dy / 2);
    } else if (e.buttons & 6 || e.shiftKey) this.shift(dx, dy);
    else {
      this.yaw -= dx * 0.008;
      this.pitch = Math.min(1.5, Math.max(-0.6, this.pitch + dy * 0.006));
    }
    this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
    this.changed();
  }

  shift(dx, dy) {
    const metre = this.distance * 2 * Math.tan(FOV / 2) / this.canvas.clientHeight;
    this.target[0] -= dx * metre * Math.cos(this.yaw);
    this.target[2] += dx * metre * Math.sin(this.yaw);
    this.target[1] = Math.min(3, Math.max(-0.5, this.target[1] + dy * metre));
  }

  /** Set the view for a picture of so many real pixels, `ratio` of them in one of the page. */
  update(width, height, ratio) {
    const { yaw, pitch, distance, view } = this;
    this.size = [width, height];
    this.ratio = ratio;
    this.focal = Math.min(height, width * 1.15) / 2 / Math.tan(FOV / 2);
    const ahead = [-Math.sin(yaw) * Math.cos(pitch), -Math.sin(pitch), -Math.cos(yaw) * Math.cos(pitch)];
    const right = [Math.cos(yaw), 0, -Math.sin(yaw)];
    const down = [ahead[1] * right[2] - ahead[2] * right[1], ahead[2] * right[0] - ahead[0] * right[2], ahead[0] * right[1] - ahead[1] * right[0]];
    const middle = this.target.map((t, k) => t + this.follow[k]);
    const eye = middle.map((m, k) => m - distance * ahead[k]);
    this.eye = eye;
    [right, down, ahead].forEach((axis, r) => {
      for (let c = 0; c < 3; c++) view[4 * c + r] = axis[c];
      view[12 + r] = -(axis[0] * eye[0] + axis[1] * eye[1] + axis[2] * eye[2]);
    });
    view[15] = 1;
  }

  set(gl, at) {
    gl.uniformMatrix4fv(at.view, false, this.view);
    gl.uniform2f(at.focal, this.focal, this.focal);
    gl.uniform2fv(at.viewport, this.size);
  }

  /** Page pixels of a point, and its depth in metres. */
  project(x, y, z) {
    const v = this.view, depth = v[2] * x + v[6] * y + v[10] * z + v[14], scale = this.focal / depth / this.ratio;
    return [this.size[0] / 2 / this.ratio + scale * (v[0] * x + v[4] * y + v[8] * z + v[12]),
            this.size[1] / 2 / this.ratio + scale * (v[1] * x + v[5] * y + v[9] * z + v[13]), depth];
  }
}
