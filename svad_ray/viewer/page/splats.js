// The Gaussians: skinned in the vertex shader, sorted back to front by their posed depth, blended over what is drawn before them.
// Skinning as svad_ray.splat.kernels.posing: the blended 3 x 4 moves the centre; the orientation keeps the direction of its first axis.
// Projection as 3D Gaussian splatting (Kerbl et al. 2023), with the 0.3 pixel of blur that svad_ray.splat adds.

import { AT, CLIP, Table, program, quads } from "./gpu.js";

const BINS = 1 << 16;

const VERTEX = `${AT}${CLIP}
uniform sampler2D points, quats, scales;
uniform usampler2D order, bound, looks;
uniform vec4 skin[165];
uniform mat4 view;
uniform float plain;  // 1: the region colours, 0: the own ones
out vec2 where;
out vec4 color;

void main() {
  int quad = gl_VertexID >> 2, i = int(texelFetch(order, at(quad >> 2), 0)[quad & 3]);
  vec3 p = texelFetch(points, at(i), 0).xyz;
  vec4 q = texelFetch(quats, at(i), 0);
  vec3 s = texelFetch(scales, at(i), 0).xyz;
  uvec4 joints = texelFetch(bound, at(2 * i), 0), more = texelFetch(bound, at(2 * i + 1), 0);
  uint weights[4] = uint[4](joints.z, joints.w, more.x, more.y);
  vec4 m0 = vec4(0), m1 = vec4(0), m2 = vec4(0);
  for (int k = 0; k < 8; k++) {
    int j = int((k < 4 ? joints.x >> (8 * k) : joints.y >> (8 * (k - 4))) & 255u) * 3;
    float w = float((weights[k / 2] >> (16 * (k % 2))) & 65535u) / 65535.0;
    if (w > 0.0) { m0 += w * skin[j]; m1 += w * skin[j + 1]; m2 += w * skin[j + 2]; }
  }
  mat3 turn = transpose(mat3(m0.xyz, m1.xyz, m2.xyz));
  vec3 c = (view * vec4(turn * p + vec3(m0.w, m1.w, m2.w), 1.0)).xyz;
  gl_Position = vec4(0, 0, 2, 1);  // behind everything: not drawn
  if (c.z < 0.05) return;

  float w = q.x, x = q.y, y = q.z, z = q.w;
  vec3 e = normalize(turn * vec3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)));
  vec3 g = turn * vec3(2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
  g = normalize(g - dot(e, g) * e);
  mat3 axes = mat3(view) * mat3(e * s.x, cross(g, e) * s.y, g * s.z);

  vec2 edge = 0.65 * viewport / focal, f = focal / c.z, t = clamp(c.xy / c.z, -edge, edge);
  mat3x2 J = mat3x2(f.x, 0, 0, f.y, -f * t);
  mat3x2 A = J * axes;
  mat2 S = A * transpose(A);
  float a = S[0][0] + 0.3, b = S[1][0], d = S[1][1] + 0.3;
  float mid = 0.5 * (a + d), gap = sqrt(max(mid * mid - (a * d - b * b), 1e-9)), large = mid + gap, small = max(mid - gap, 1e-6);
  vec2 u = abs(b) > 1e-6 ? normalize(vec2(b, large - a)) : (a >= d ? vec2(1, 0) : vec2(0, 1));

  uvec4 look = texelFetch(looks, at(i), 0);
  uint own = plain > 0.5 ? look.y : look.x;
  float opacity = float(look.x >> 24u) / 255.0;
  if (opacity < 1.0 / 255.0) return;
  float reach = sqrt(2.0 * log(255.0 * opacity));
  where = reach * (vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0);
  color = vec4(vec3(own & 255u, (own >> 8u) & 255u, (own >> 16u) & 255u) / 255.0, opacity);
  vec2 pixels = where.x * sqrt(large) * u + where.y * sqrt(small) * vec2(-u.y, u.x);
  gl_Position = clip(c);
  gl_Position.xy += vec2(2, -2) * pixels / viewport * gl_Position.w;
}`;

const FRAGMENT = `
in vec2 where;
in vec4 color;
out vec4 pixel;
void main() {
  float alpha = min(0.999, color.a * exp(-0.5 * dot(where, where)));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`;

export class Splats {
  constructor(gl, arrays, expressive) {
    Object.assign(this, { gl, expressive });
    this.count = arrays.means.shape[0];
    this.joints = arrays.joints.data;
    this.weights = arrays.weights.data;
    this.program = program(gl, VERTEX, FRAGMENT);
    this.points = new Table(gl, this.padded(expressive.points));
    this.quats = new Table(gl, unit(arrays.quats.data));
    this.scales = new Table(gl, this.padded(arrays.scales.data));
    this.bound = new Table(gl, this.packed());
    this.looks = new Table(gl, this.colors(arrays));
    this.order = new Uint32Array(this.count);
    this.depths = new Float32Array(this.count);
    this.counts = new Uint32Array(BINS + 1);
    this.sorted = new Table(gl, this.order);
    this.vertices = quads(gl, this.count);
  }

  padded(rows) {
    const out = new Float32Array(4 * this.count);
    for (let i = 0; i < this.count; i++) for (let k = 0; k < 3; k++) out[4 * i + k] = rows[3 * i + k];
    return out;
  }

  /** Eight joints of 8 bits and eight weights of 16 bits in two texels. */
  packed() {
    const out = new Uint32Array(8 * this.count);
    for (let i = 0; i < this.count; i++) {
      const from = 8 * i;
      for (let k = 0; k < 8; k++) {
        out[from + (k >> 2)] |= this.joints[from + k] << (8 * (k & 3));
        out[from + 2 + (k >> 1)] |= Math.round(this.weights[from + k] * 65535) << (16 * (k & 1));
      }
    }
    return out;
  }

  colors({ rgba, regions }) {
    const out = new Uint32Array(4 * this.count);
    for (let i = 0; i < this.count; i++) {
      const d = rgba.data, r = regions?.data;
      out[4 * i] = d[4 * i] | (d[4 * i + 1] << 8) | (d[4 * i + 2] << 16) | (d[4 * i + 3] << 24);
      if (r) out[4 * i + 1] = r[3 * i] | (r[3 * i + 1] << 8) | (r[3 * i + 2] << 16);
    }
    return out;
  }

  /** Farthest first: a counting sort of 16 bits over the depths under `skin` (rows of 3 x 4) and the third row of the camera. */
  sort(skin, view) {
    const { count, joints, weights, depths, counts, order } = this, p = this.expressive.points, rows = new Float32Array(55 * 4);
    for (let j = 0; j < 55; j++)
      for (let c = 0; c < 4; c++) rows[4 * j + c] = view[2] * skin[12 * j + c] + view[6] * skin[12 * j + 4 + c] + view[10] * skin[12 * j + 8 + c];
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const x = p[3 * i], y = p[3 * i + 1], z = p[3 * i + 2];
      let depth = 0;
      for (let k = 8 * i; k < 8 * i + 8 && weights[k] > 0; k++) {
        const j = 4 * joints[k];
        depth += weights[k] * (rows[j] * x + rows[j + 1] * y + rows[j + 2] * z + rows[j + 3]);
      }
      depths[i] = depth;
      if (depth < low) low = depth;
      if (depth > high) high = depth;
    }
    const scale = (BINS - 1) / Math.max(high - low, 1e-9);
    counts.fill(0);
    for (let i = 0; i < count; i++) counts[(((high - depths[i]) * scale) | 0) + 1]++;
    for (let b = 1; b < BINS; b++) counts[b] += counts[b - 1];
    for (let i = 0; i < count; i++) order[counts[((high - depths[i]) * scale) | 0]++] = i;
  }

  draw(skin, camera, regions) {
    const { gl } = this, { made, at } = this.program;
    this.sort(skin, camera.view);
    gl.useProgram(made);
    gl.bindVertexArray(this.vertices);
    this.sorted.fill(this.order);
    if (this.stale) this.points.fill(this.padded(this.expressive.points));
    this.stale = false;
    const tables = { points: this.points, quats: this.quats, scales: this.scales, order: this.sorted, bound: this.bound, looks: this.looks };
    Object.entries(tables).forEach(([name, table], unit) => table.bind(unit, at[name]));
    gl.uniform4fv(at.skin, skin);
    camera.set(gl, at);
    gl.uniform1f(at.plain, regions ? 1 : 0);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.TRIANGLES, 6 * this.count, gl.UNSIGNED_INT, 0);
  }
}

function unit(quats) {
  const out = new Float32Array(quats.length);
  for (let i = 0; i < quats.length; i += 4) {
    const n = Math.hypot(quats[i], quats[i + 1], quats[i + 2], quats[i + 3]) || 1;
    for (let k = 0; k < 4; k++) out[i + k] = quats[i + k] / n;
  }
  return out;
}
