// Arrays from a safetensors file: eight bytes of length, a JSON header, then the data.

const KINDS = { F32: Float32Array, U8: Uint8Array, U32: Uint32Array };

/** Name -> {shape, data}; the data are views of `buffer`. */
export function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const kind = KINDS[dtype];
    const start = 8 + length + from;
    // An array that does not lie at a multiple of its number size is copied: views must.
    const data = start % kind.BYTES_PER_ELEMENT ? new kind(buffer.slice(start, 8 + length + to)) : new kind(buffer, start, (to - from) / kind.BYTES_PER_ELEMENT);
    arrays[name] = { shape, data };
  }
  return arrays;
}
