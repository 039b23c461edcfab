// Joints and bones, drawn over the picture: one colour a side, fingers finer.

export class Bones {
  constructor(canvas, names, parents) {
    Object.assign(this, { canvas, names, parents, context: canvas.getContext("2d") });
    this.fine = names.map((name) => /\d$/.test(name) && !name.startsWith("spine"));
    this.side = names.map((name) => (name.startsWith("left_") ? "left" : name.startsWith("right_") ? "right" : "middle"));
  }

  clear(ratio) {
    const { width, height } = this.canvas;
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, width, height);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  draw(joints, camera, colors, pointer) {
    const c = this.context, at = this.names.map((_, j) => camera.project(joints[3 * j], joints[3 * j + 1], joints[3 * j + 2]));
    const grow = Math.min(2.2, Math.max(0.6, 4 / camera.distance));
    c.lineCap = "round";
    for (let pass = 0; pass < 2; pass++) // a rim first, so that bones stand out from whatever is behind them
      for (let j = 1; j < at.length; j++) {
        const p = this.parents[j];
        if (p < 0 || at[j][2] < 0.05 || at[p][2] < 0.05) continue;
        c.strokeStyle = pass ? colors[this.side[j]] : colors.rim;
        c.lineWidth = (this.fine[j] ? 1.1 : 2.4) * grow + (pass ? 0 : 2);
        c.beginPath();
        c.moveTo(at[p][0], at[p][1]);
        c.lineTo(at[j][0], at[j][1]);
        c.stroke();
      }
    let near = -1, best = 14;
    at.forEach(([x, y, depth], j) => {
      if (depth < 0.05) return;
      c.beginPath();
      c.arc(x, y, (this.fine[j] ? 1.5 : 4) * grow, 0, 7);
      c.fillStyle = colors[this.side[j]];
      c.fill();
      c.lineWidth = 1.2;
      c.strokeStyle = colors.rim;
      c.stroke();
      const d = pointer ? Math.hypot(x - pointer[0], y - pointer[1]) : Infinity;
      if (d < best) [near, best] = [j, d];
    });
    if (near >= 0) this.label(this.names[near].replaceAll("_", " "), at[near], colors);
  }

  label(text, [x, y], colors) {
    const c = this.context;
    c.font = "12px system-ui, sans-serif";
    const width = c.measureText(text).width + 14;
    c.fillStyle = colors.rim;
    c.beginPath();
    c.roundRect(x + 10, y - 26, width, 20, 5);
    c.fill();
    c.fillStyle = colors.text;
    c.fillText(text, x + 17, y - 12);
  }
}
