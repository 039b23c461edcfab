// The page: loads the scene, keeps the picture up to date with the controls.

import { Bones } from "./bones.js";
import { Camera } from "./camera.js";
import { Floor } from "./floor.js";
import { Chips, Sliders, Transport, legend, origin } from "./panel.js";
import { readSafetensors } from "./safetensors.js";
import { Expressive, Skeleton, turnsOf } from "./skeleton.js";
import { Splats } from "./splats.js";
import { Surface } from "./surface.js";

const $ = (id) => document.getElementById(id);
const GAUSSIANS = "Gaussians", WIRE = "wireframe", BONES = "joints", REGIONS = "seen or generated";
const HEAD = 15, PELVIS = 0, BALLS = [10, 11]; // joints
const FAR = 0.6; // metres: the camera follows a person who goes farther
const THEMES = {
  dark: { grid: [1, 1, 1, 0.16], shade: 0.5, clay: [0.5, 0.52, 0.56], ink: [0.95, 0.97, 1, 0.26], clayInk: [0.04, 0.05, 0.06, 0.5],
          bones: { left: "#5aa7ff", right: "#ff9d5c", middle: "#c9ced6", rim: "rgba(10,12,16,.75)", text: "#fff" } },
  light: { grid: [0.1, 0.12, 0.15, 0.2], shade: 0.28, clay: [0.86, 0.87, 0.89], ink: [0.05, 0.07, 0.1, 0.3], clayInk: [0.2, 0.23, 0.28, 0.35],
           bones: { left: "#1667d9", right: "#d9600e", middle: "#565d68", rim: "rgba(255,255,255,.85)", text: "#111" } },
};
const started = performance.now();
let dirty = true;
const touch = () => (dirty = true);

async function fetched(path, kind) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()) || `${path}: ${answer.status}`);
  return answer[kind]();
}

function say(text) {
  $("message").textContent = text;
}

class Page {
  constructor(gl, scene, arrays) {
    Object.assign(this, { gl, scene, clips: new Map(), drawn: 0, times: [] });
    this.skeleton = new Skeleton(scene.parents, arrays.rest_joints.data, arrays.unpose.data);
    this.body = new Expressive(arrays.means.data, arrays.expr_index, arrays.expr_dirs);
    this.skin = new Expressive(arrays["surface.points"].data, arrays["surface.expr_index"], arrays["surface.expr_dirs"]);
    this.splats = new Splats(gl, arrays, this.body);
    this.surface = new Surface(gl, arrays, this.skin);
    this.floor = new Floor(gl);
    this.camera = new Camera($("picture"), touch);
    this.bones = new Bones($("overlay"), scene.joints, scene.parents);
    this.transport = new Transport(touch);
    this.sliders = new Sliders(scene.groups, touch);
    const shows = [GAUSSIANS, WIRE, BONES, ...(scene.regions ? [REGIONS] : [])];
    this.shows = new Chips("shows", shows, { pressed: [GAUSSIANS], changed: () => {
      legend(this.shows.on(REGIONS), scene.regions);
      touch();
    } });
    this.choice = new Chips("clips", scene.clips, { one: true, pressed: [scene.first], changed: (name) => this.play(name) });
    $("home").addEventListener("click", () => this.camera.home());
    $("face").addEventListener("click", () => this.face());
    this.theme(matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
    $("theme").addEventListener("click", () => this.theme(this.look === THEMES.dark ? "light" : "dark"));
    $("picture").addEventListener("pointermove", (e) => {
      this.pointer = [e.offsetX, e.offsetY];
      if (this.shows.on(BONES)) touch();
    });
    addEventListener("keydown", (e) => (e.key === "r" ? this.camera.home() : e.key === "f" && this.face()));
    new ResizeObserver(touch).observe($("picture"));
  }

  theme(name) {
    this.look = THEMES[name];
    document.documentElement.className = name;
    touch();
  }

  async load(name) {
    if (!this.clips.has(name)) {
      const { quats, transl, expression, fps } = readSafetensors(await fetched(`clips/${encodeURIComponent(name)}`, "arrayBuffer"));
      const [length, expressions] = expression.shape;
      this.clips.set(name, { quats: quats.data, transl: transl.data, expression: expression.data, expressions, length, fps: fps.data[0] });
    }
    return this.clips.get(name);
  }

  async play(name) {
    this.wanted = name;
    try {
      const clip = await this.load(name);
      if (this.wanted !== name) return;
      say("");
      this.transport.load(clip);
      const path = [0, 2].map((k) => clip.transl.filter((_, i) => i % 3 === k));
      clip.travels = path.some((p) => p.reduce((a, b) => Math.max(a, b), -9) - p.reduce((a, b) => Math.min(a, b), 9) > FAR);
      document.documentElement.dataset.clip = name;
      touch();
    } catch (error) {
      say(`${name} cannot be played\n${error.message}`);
    }
  }

  expression(clip, frame) {
    const E = clip.expressions, a = Math.floor(frame), b = Math.min(a + 1, clip.length - 1), t = frame - a;
    const own = Array.from({ length: E }, (_, e) => clip.expression[a * E + e] * (1 - t) + clip.expression[b * E + e] * t);
    return this.sliders.expression(own, this.scene.expressions);
  }

  pose() {
    const { clip, frame } = this.transport;
    this.skeleton.pose(clip, frame, turnsOf(this.sliders.all, this.sliders.values));
    const expression = this.expression(clip, frame);
    if (this.body.express(expression)) this.splats.stale = true;
    this.skin.express(expression);
    this.camera.follow = clip.travels ? [this.skeleton.root[0], 0, this.skeleton.root[2]] : [0, 0, 0];
  }

  /** The height that the picture is to show: of the still pose. */
  frame(clip) {
    this.skeleton.pose(clip, 0, new Map());
    const joints = this.skeleton.joints, head = joints[3 * HEAD + 1];
    this.camera.reset([0, head * 0.54, 0], head * 1.5);
  }

  /** Near to where the head is now. */
  face() {
    const { joints } = this.skeleton, { follow } = this.camera;
    this.camera.look([0, 1, 2].map((k) => joints[3 * HEAD + k] - follow[k] + (k === 1 ? 0.05 : 0)), 0.4, 0);
  }

  tick(now, last) {
    requestAnimationFrame((next) => this.tick(next, now));
    if (this.transport.clip && (this.transport.advance((now - last) / 1000) || dirty)) {
      dirty = false;
      this.draw();
      this.times.push(now);
      this.statistics(now);
    }
  }

  draw() {
    const { gl, look } = this, canvas = gl.canvas, ratio = Math.min(devicePixelRatio, 2);
    for (const c of [canvas, $("overlay")]) {
      const [w, h] = [Math.round(c.clientWidth * ratio), Math.round(c.clientHeight * ratio)];
      if (c.width !== w || c.height !== h) Object.assign(c, { width: w, height: h });
    }
    this.pose();
    this.camera.update(canvas.width, canvas.height, ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { joints } = this.skeleton, ground = (j) => [joints[3 * j], joints[3 * j + 2]];
    if (this.camera.eye[1] > 0.02) this.floor.draw(this.camera, ground(PELVIS), BALLS.flatMap(ground), look.grid, look.shade);
    const gaussians = this.shows.on(GAUSSIANS) || this.shows.on(REGIONS);
    if (gaussians) this.splats.draw(this.skeleton.splats, this.camera, this.shows.on(REGIONS));
    if (this.shows.on(WIRE))
      this.surface.draw(this.skeleton.surface, this.camera, gaussians ? { ink: look.ink } : { clay: look.clay, ink: look.clayInk });
    this.bones.clear(ratio);
    if (this.shows.on(BONES)) this.bones.draw(joints, this.camera, look.bones, this.pointer);
    document.documentElement.dataset.drawn = ++this.drawn;
  }

  statistics(now) {
    while (this.times[0] < now - 1000) this.times.shift();
    const rate = this.transport.playing && now - started > 1500 ? ` · ${this.times.length} fps` : "";
    $("stats").textContent = `${this.scene.gaussians.toLocaleString("en")} Gaussians${rate}`;
  }
}

async function start() {
  const gl = $("picture").getContext("webgl2", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true });
  if (!gl) throw new Error("This browser gives no WebGL2.\nTry another browser, or switch its hardware acceleration on.");
  const [scene, buffer] = await Promise.all([fetched("scene.json", "json"), fetched("avatar.safetensors", "arrayBuffer")]);
  document.title = `${scene.name} · svad-ray`;
  $("name").textContent = scene.name;
  origin(scene);
  const page = new Page(gl, scene, readSafetensors(buffer));
  page.frame(await page.load("stand"));
  await page.play(scene.first);
  requestAnimationFrame((now) => page.tick(now, now));
  window.page = page; // for a look from the browser's console, and for the tests
  document.documentElement.dataset.state = "ready";
}

start().catch((error) => {
  console.error(error);
  say(error.message);
  document.documentElement.dataset.state = "failed";
});
