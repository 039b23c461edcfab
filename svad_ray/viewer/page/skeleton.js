// The skeleton: a clip's frame with the sliders on top, to joints and skinning transforms. Quaternions are xyzw; transforms are rows of 3 x 4.

export const JOINTS = 55;
const FEET = [7, 8, 10, 11], NONE = new Map(); // ankles and balls of the feet

function multiply(out, a, ai, b, bi) {
  const ax = a[ai], ay = a[ai + 1], az = a[ai + 2], aw = a[ai + 3];
  const bx = b[bi], by = b[bi + 1], bz = b[bi + 2], bw = b[bi + 3];
  out[0] = aw * bx + ax * bw + ay * bz - az * by;
  out[1] = aw * by - ax * bz + ay * bw + az * bx;
  out[2] = aw * bz + ax * by - ay * bx + az * bw;
  out[3] = aw * bw - ax * bx - ay * by - az * bz;
}

/** out[o..o+11] = a[p..] * b[q..], both 3 x 4 with an implied last row 0 0 0 1. */
function chained(out, o, a, p, b, q) {
  for (let r = 0; r < 3; r++) {
    const x = a[p + 4 * r], y = a[p + 4 * r + 1], z = a[p + 4 * r + 2];
    for (let c = 0; c < 4; c++) out[o + 4 * r + c] = x * b[q + c] + y * b[q + 4 + c] + z * b[q + 8 + c];
    out[o + 4 * r + 3] += a[p + 4 * r + 3];
  }
}

export class Skeleton {
  /** `rest`: 55 x 3 metres, `unpose`: 55 x 12, from where the Gaussians lie to the joints' rest pose. */
  constructor(parents, rest, unpose) {
    Object.assign(this, { parents, rest, unpose });
    this.joints = new Float32Array(JOINTS * 3); // posed, metres
    this.world = new Float32Array(JOINTS * 12);
    this.surface = new Float32Array(JOINTS * 12); // skinning of points that lie in the joints' rest pose
    this.splats = new Float32Array(JOINTS * 12); // skinning of the Gaussians
  }

  /** Pose by `clip` at `frame` (a fraction lies between two frames), with `turns`: a Map of joint -> quaternion set before the clip's own. */
  pose(clip, frame, turns) {
    this.lift = 0;
    this.chain(clip, frame, NONE);
    if (!turns.size) return;
    const before = this.lowest();
    this.chain(clip, frame, turns);
    this.lift = before - this.lowest(); // bent by hand, a person still stands as high as the clip has them stand
    this.chain(clip, frame, turns);
  }

  lowest() {
    return Math.min(...FEET.map((j) => this.joints[3 * j + 1]));
  }

  chain(clip, frame, turns) {
    const { quats, transl, length } = clip;
    const a = Math.min(Math.floor(frame), length - 1), b = Math.min(a + 1, length - 1), t = frame - a;
    const q = new Float32Array(4), local = new Float32Array(12), back = new Float32Array(12), rest = this.rest;
    const shift = [0, 1, 2].map((k) => transl[3 * a + k] * (1 - t) + transl[3 * b + k] * t);
    shift[1] += this.lift;
    this.root = shift;
    for (let j = 0; j < JOINTS; j++) {
      const i = 4 * (a * JOINTS + j), n = 4 * (b * JOINTS + j);
      const sign = quats[i] * quats[n] + quats[i + 1] * quats[n + 1] + quats[i + 2] * quats[n + 2] + quats[i + 3] * quats[n + 3] < 0 ? -1 : 1;
      let norm = 0;
      for (let k = 0; k < 4; k++) norm += (q[k] = quats[i + k] * (1 - t) + sign * quats[n + k] * t) ** 2;
      for (let k = 0; k < 4; k++) q[k] /= Math.sqrt(norm);
      const turn = turns.get(j);
      if (turn) multiply(q, turn, 0, Float32Array.from(q), 0);
      const [x, y, z, w] = q, p = this.parents[j];
      local.set([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 0,
                 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 0,
                 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), 0]);
      for (let k = 0; k < 3; k++) local[4 * k + 3] = rest[3 * j + k] - (p < 0 ? -shift[k] : rest[3 * p + k]);
      if (p < 0) this.world.set(local, 12 * j);
      else chained(this.world, 12 * j, this.world, 12 * p, local, 0);
      back.set([1, 0, 0, -rest[3 * j], 0, 1, 0, -rest[3 * j + 1], 0, 0, 1, -rest[3 * j + 2]]);
      chained(this.surface, 12 * j, this.world, 12 * j, back, 0);
      chained(this.splats, 12 * j, this.surface, 12 * j, this.unpose, 12 * j);
      for (let k = 0; k < 3; k++) this.joints[3 * j + k] = this.world[12 * j + 4 * k + 3];
    }
  }
}

/** The turns that `sliders` with their `values` (degrees) make: Map of joint -> quaternion. */
export function turnsOf(sliders, values) {
  const turns = new Map();
  sliders.forEach(({ turns: own }, s) => {
    if (!values[s]) return;
    for (const [joint, x, y, z] of own) {
      const length = Math.hypot(x, y, z), half = (values[s] * length * Math.PI) / 360, sine = Math.sin(half) / length;
      const q = new Float32Array([x * sine, y * sine, z * sine, Math.cos(half)]);
      if (turns.has(joint)) multiply(q, Float32Array.from(q), 0, turns.get(joint), 0);
      turns.set(joint, q);
    }
  });
  return turns;
}

/** Rest points (N x 3) that expressions move. */
export class Expressive {
  constructor(points, index, directions) {
    this.rest = points;
    this.points = Float32Array.from(points);
    this.index = index.data;
    this.directions = directions.data;
    this.count = index.data.length ? directions.shape[2] : 0;
    this.last = new Float32Array(this.count);
  }

  /** Move to `expression`; true where that changed anything. */
  express(expression) {
    const E = this.count, last = this.last;
    let changed = false;
    for (let e = 0; e < E; e++) changed ||= last[e] !== Math.fround(expression[e] ?? 0);
    if (!changed) return false;
    for (let e = 0; e < E; e++) last[e] = expression[e] ?? 0;
    for (let i = 0; i < this.index.length; i++)
      for (let k = 0; k < 3; k++) {
        const row = (3 * i + k) * E, at = 3 * this.index[i] + k;
        let sum = this.rest[at];
        for (let e = 0; e < E; e++) sum += this.directions[row + e] * last[e];
        this.points[at] = sum;
      }
    return true;
  }
}
