// The floor: a grid of half metres that fades away, and a soft shadow below the person.

import { CLIP, program } from "./gpu.js";

const VERTEX = `${CLIP}
uniform mat4 view;
uniform vec2 middle;
out vec2 place;
void main() {
  place = middle + 4.0 * (vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0);
  gl_Position = clip((view * vec4(place.x, 0.0, place.y, 1.0)).xyz);
}`;
const FRAGMENT = `
in vec2 place;
uniform vec2 middle, feet[2];
uniform vec4 ink;
uniform float shade;
out vec4 pixel;
void main() {
  vec2 cell = place / 0.5, width = fwidth(cell);
  vec2 line = clamp(1.2 - abs(fract(cell - 0.5) - 0.5) / width, 0.0, 1.0);
  float fade = smoothstep(3.4, 0.6, length(place - middle));
  float grid = max(line.x, line.y) * ink.a * fade * clamp(0.5 / max(width.x, width.y), 0.0, 1.0);
  float shadow = 0.0;
  for (int i = 0; i < 2; i++) shadow = max(shadow, exp(-dot(place - feet[i], place - feet[i]) / 0.035));
  shadow = max(shadow * shade, 0.6 * shade * exp(-dot(place - middle, place - middle) / 0.16));
  pixel = vec4(ink.rgb * grid * (1.0 - shadow), grid + shadow - grid * shadow);
}`;

export class Floor {
  constructor(gl) {
    this.gl = gl;
    this.program = program(gl, VERTEX, FRAGMENT);
    this.vertices = gl.createVertexArray();
  }

  draw(camera, middle, feet, ink, shade) {
    const { gl } = this, { made, at } = this.program;
    gl.useProgram(made);
    gl.bindVertexArray(this.vertices);
    camera.set(gl, at);
    gl.uniform2fv(at.middle, middle);
    gl.uniform2fv(at.feet, feet);
    gl.uniform4fv(at.ink, ink);
    gl.uniform1f(at.shade, shade);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}
