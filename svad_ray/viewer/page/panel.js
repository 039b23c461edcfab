// The controls beside the picture. Their values are the state; whoever draws asks them.

const $ = (id) => document.getElementById(id);

function made(kind, parent, properties = {}) {
  const element = Object.assign(document.createElement(kind), properties);
  parent.append(element);
  return element;
}

/** Colour the part of a slider between its zero (or low end) and its thumb. */
function fill(input) {
  const share = (v) => (100 * (v - input.min)) / (input.max - input.min || 1);
  const [from, to] = [share(Math.min(Math.max(0, input.min), input.max)), share(input.valueAsNumber)].sort((a, b) => a - b);
  input.style.setProperty("--from", `${from}%`);
  input.style.setProperty("--to", `${to}%`);
}

/** A row of buttons that stay pressed; `one`: exactly one is. */
export class Chips {
  constructor(id, names, { one, pressed, changed }) {
    this.buttons = new Map(names.map((name) => [name, made("button", $(id), { textContent: name, title: name })]));
    this.set = (name, on) => this.buttons.get(name).setAttribute("aria-pressed", on);
    for (const [name, button] of this.buttons) {
      this.set(name, pressed.includes(name));
      button.addEventListener("click", () => {
        if (one) for (const other of this.buttons.keys()) this.set(other, other === name);
        else this.set(name, !this.on(name));
        changed(name);
      });
    }
  }

  on(name) {
    return this.buttons.get(name)?.getAttribute("aria-pressed") === "true";
  }
}

export class Sliders {
  /** `groups`: name -> sliders, in the order of which `values` are. */
  constructor(groups, changed) {
    this.all = Object.values(groups).flat();
    this.values = this.all.map(() => 0);
    this.inputs = [];
    let number = 0;
    for (const [name, sliders] of Object.entries(groups)) {
      const box = made("div", $("pose"), { className: "group" });
      const head = made("h3", box, { textContent: name });
      if (sliders.some((s) => s.side)) {
        head.className = "sides";
        for (const side of ["left", "right"]) made("span", head, { textContent: side });
      }
      let row;
      for (const slider of sliders) {
        if (slider.side !== "right") row = made("div", box, { className: slider.side ? "row sides" : "row" });
        if (slider.side !== "right") made("span", row, { textContent: slider.name });
        this.inputs.push(this.input(row, name, slider, number++, changed));
      }
    }
    $("reset").addEventListener("click", () => {
      this.inputs.forEach((input, k) => this.put(input, k, 0));
      changed();
    });
  }

  input(row, group, { name, side, low, high, turns }, number, changed) {
    const label = [group, side, name].filter(Boolean).join(": ");
    const input = made("input", row, { type: "range", min: low, max: high, step: turns.length ? 1 : 0.01, value: 0, ariaLabel: label });
    input.addEventListener("input", () => {
      this.put(input, number, input.valueAsNumber);
      changed();
    });
    input.addEventListener("dblclick", () => {
      this.put(input, number, 0);
      changed();
    });
    this.put(input, number, 0);
    return input;
  }

  put(input, number, value) {
    input.value = value;
    this.values[number] = value;
    input.title = this.all[number].turns.length ? `${Math.round(value)}°` : value.toFixed(2);
    fill(input);
  }

  /** The clip's expression with the sliders' on top. */
  expression(own, count) {
    const out = new Float32Array(count);
    for (let e = 0; e < count; e++) {
      out[e] = own[e] ?? 0;
      this.all.forEach((slider, s) => (out[e] += this.values[s] * (slider.expression[e] ?? 0)));
    }
    return out;
  }
}

/** Play, time and speed. */
export class Transport {
  constructor(changed) {
    this.playing = false;
    this.frame = 0;
    $("play").addEventListener("click", () => this.play(!this.playing));
    $("time").addEventListener("input", () => {
      this.play(false);
      this.frame = $("time").valueAsNumber;
      this.show();
      changed();
    });
    addEventListener("keydown", (e) => {
      if (e.code !== "Space" || /^(BUTTON|SELECT)$/.test(e.target.tagName)) return;
      e.preventDefault();
      this.play(!this.playing);
    });
  }

  play(on) {
    this.playing = on && this.clip.length > 1;
    $("play").classList.toggle("playing", this.playing);
    $("play").ariaLabel = this.playing ? "Pause" : "Play";
  }

  load(clip) {
    this.clip = clip;
    this.frame = 0;
    $("time").max = Math.max(clip.length - 1, 0);
    for (const id of ["time", "play", "speed"]) $(id).disabled = clip.length < 2;
    $("transport").style.visibility = clip.length < 2 ? "hidden" : "visible";
    this.play(true);
    this.show();
  }

  advance(seconds) {
    if (!this.playing) return false;
    this.frame = (this.frame + seconds * this.clip.fps * Number($("speed").value)) % (this.clip.length - 1 || 1);
    this.show();
    return true;
  }

  show() {
    const { fps, length } = this.clip;
    $("time").value = this.frame;
    fill($("time"));
    $("clock").textContent = `${(this.frame / fps).toFixed(1)} / ${((length - 1) / fps).toFixed(1)} s`;
  }
}

/** Where the avatar comes from, in the panel's last lines. */
export function origin({ provenance: { consent, commercial_use: use, commercial_reason: why }, version }) {
  const lines = [];
  if (consent) lines.push(`Consent of the person: ${consent}.`);
  if (use !== undefined) lines.push(`Commercial use ${use ? "allowed" : "not allowed"}: ${why}.`);
  $("origin").textContent = [...lines, `svad-ray ${version}`].join(" ");
}

/** What the colours of the regions mean; `regions` null: nothing to say. */
export function legend(shown, regions) {
  const place = $("legend");
  place.hidden = !shown;
  if (!shown) return;
  place.replaceChildren();
  for (const { name, rgb } of regions.colors) {
    made("i", place).style.background = `rgb(${rgb})`;
    place.append(name);
  }
  if (regions.seen != null) made("p", place, { textContent: `${Math.round(100 * regions.seen)} % of the surface was seen.` });
}
