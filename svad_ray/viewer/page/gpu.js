// Small helpers over WebGL2: programs, and tables of numbers as textures that shaders read by index.

export const WIDTH = 1024; // texels of a table's row

export function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;\nprecision highp int;\nprecision highp sampler2D;\nprecision highp usampler2D;\n${source}`);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    at[name.replace("[0]", "")] = gl.getUniformLocation(made, name);
  }
  return { made, at };
}

/** A table of N texels with four numbers each: Float32Array or Uint32Array of 4 N numbers, of any N. */
export class Table {
  constructor(gl, data) {
    this.gl = gl;
    this.whole = !(data instanceof Float32Array);
    this.rows = Math.max(1, Math.ceil(data.length / 4 / WIDTH));
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, this.whole ? gl.RGBA32UI : gl.RGBA32F, WIDTH, this.rows);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    this.padded = new data.constructor(4 * WIDTH * this.rows);
    this.fill(data);
  }

  fill(data) {
    const { gl } = this;
    this.padded.set(data);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    const [format, type] = this.whole ? [gl.RGBA_INTEGER, gl.UNSIGNED_INT] : [gl.RGBA, gl.FLOAT];
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, this.rows, format, type, this.padded);
  }

  bind(unit, location) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.uniform1i(location, unit);
  }
}

/** Vertices of `count` quads as triangles: the shader tells quad and corner from gl_VertexID, as 4 quads + corner. Instances would be slow in software. */
export function quads(gl, count) {
  const vertices = gl.createVertexArray(), index = new Uint32Array(6 * count);
  for (let i = 0; i < count; i++) [0, 1, 2, 2, 1, 3].forEach((corner, k) => (index[6 * i + k] = 4 * i + corner));
  gl.bindVertexArray(vertices);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, index, gl.STATIC_DRAW);
  return vertices;
}

/** GLSL: the texel of number `i`. */
export const AT = `ivec2 at(int i) { return ivec2(i % ${WIDTH}, i / ${WIDTH}); }\n`;

/** GLSL: camera axes (x right, y down, z forward) to clip space; the depth runs from 0.05 m to 50 m. */
export const CLIP = `
uniform vec2 focal, viewport;
vec4 clip(vec3 c) {
  const float near = 0.05, far = 50.0;
  return vec4(2.0 * focal.x * c.x / viewport.x, -2.0 * focal.y * c.y / viewport.y, (far + near) / (far - near) * c.z - 2.0 * far * near / (far - near), c.z);
}
`;
