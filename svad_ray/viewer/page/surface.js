// The clothed surface as a wireframe whose hidden lines are hidden; without the Gaussians, as clay with lines on it.

import { AT, CLIP, Table, program, quads } from "./gpu.js";

const FACES = `${AT}${CLIP}
uniform sampler2D posed;
uniform mat4 view;
out vec3 seen;
void main() {
  seen = (view * vec4(texelFetch(posed, at(gl_VertexID), 0).xyz, 1.0)).xyz;
  gl_Position = clip(seen);
}`;
const CLAY = `
in vec3 seen;
uniform vec3 clay;
out vec4 pixel;
void main() {
  vec3 n = normalize(cross(dFdx(seen), dFdy(seen)));
  pixel = vec4(clay * (0.55 + 0.45 * abs(dot(n, normalize(vec3(0.35, -0.5, -0.8))))), 1.0);
}`;
// A line is a strip about one pixel wide with soft borders: WebGL's own lines have neither width nor smoothness.
const LINES = `${AT}${CLIP}
uniform usampler2D edges;  // two in a texel
uniform sampler2D posed;
uniform mat4 view;
uniform float width;
out float across;
void main() {
  int edge = gl_VertexID >> 2;
  uvec4 two = texelFetch(edges, at(edge >> 1), 0);
  uvec2 ends = (edge & 1) == 0 ? two.xy : two.zw;
  vec4 a = clip((view * vec4(texelFetch(posed, at(int(ends.x)), 0).xyz, 1.0)).xyz);
  vec4 b = clip((view * vec4(texelFetch(posed, at(int(ends.y)), 0).xyz, 1.0)).xyz);
  vec2 along = (b.xy / b.w - a.xy / a.w) * viewport;
  vec2 side = vec2(-along.y, along.x) / max(length(along), 1e-6) * (width + 1.0);
  across = float((gl_VertexID >> 1) & 1) * 2.0 - 1.0;
  gl_Position = (gl_VertexID & 1) == 0 ? a : b;
  if (min(a.w, b.w) < 0.05) gl_Position = vec4(0, 0, 2, 1);
  gl_Position.xy += side * across / viewport * gl_Position.w;
  gl_Position.z -= 0.002 * gl_Position.w;
}`;
const INK = `
in float across;
uniform vec4 ink;
uniform float width;
out vec4 pixel;
void main() {
  float alpha = ink.a * clamp((1.0 - abs(across)) * (width + 1.0), 0.0, 1.0);
  pixel = vec4(ink.rgb * alpha, alpha);
}`;

export class Surface {
  constructor(gl, arrays, expressive) {
    Object.assign(this, { gl, expressive });
    this.joints = arrays["surface.joints"].data;
    this.weights = arrays["surface.weights"].data;
    this.count = arrays["surface.points"].shape[0];
    this.posed = new Float32Array(4 * this.count);
    this.table = new Table(gl, this.posed);
    this.faces = { ...program(gl, FACES, CLAY), vertices: gl.createVertexArray(), count: arrays["surface.faces"].data.length };
    gl.bindVertexArray(this.faces.vertices);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, arrays["surface.faces"].data, gl.STATIC_DRAW);
    const edges = arrays["surface.edges"];
    this.edges = new Table(gl, edges.data);
    this.lines = { ...program(gl, LINES, INK), vertices: quads(gl, edges.shape[0]), count: 6 * edges.shape[0] };
  }

  skin(skin) {
    const { joints, weights, posed } = this, p = this.expressive.points;
    for (let i = 0; i < this.count; i++)
      for (let r = 0; r < 3; r++) {
        let sum = 0;
        for (let k = 8 * i; k < 8 * i + 8 && weights[k] > 0; k++) {
          const m = 12 * joints[k] + 4 * r;
          sum += weights[k] * (skin[m] * p[3 * i] + skin[m + 1] * p[3 * i + 1] + skin[m + 2] * p[3 * i + 2] + skin[m + 3]);
        }
        posed[4 * i + r] = sum;
      }
    this.table.fill(posed);
  }

  draw(skin, camera, { clay, ink }) {
    const { gl, faces, lines } = this;
    this.skin(skin);
    gl.enable(gl.DEPTH_TEST);
    gl.colorMask(!!clay, !!clay, !!clay, !!clay);
    gl.disable(gl.BLEND);
    this.use(faces, camera);
    gl.uniform3fv(faces.at.clay, clay ?? [0, 0, 0]);
    gl.drawElements(gl.TRIANGLES, faces.count, gl.UNSIGNED_INT, 0);
    gl.colorMask(true, true, true, true);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthMask(false);
    this.use(lines, camera);
    gl.uniform4fv(lines.at.ink, ink);
    gl.uniform1f(lines.at.width, 0.4 * camera.ratio);
    this.edges.bind(1, lines.at.edges);
    gl.drawElements(gl.TRIANGLES, lines.count, gl.UNSIGNED_INT, 0);
    gl.depthMask(true);
  }

  use({ made, at, vertices }, camera) {
    this.gl.useProgram(made);
    this.gl.bindVertexArray(vertices);
    this.table.bind(0, at.posed);
    camera.set(this.gl, at);
  }
}
