// The system prompt and the sampling of replies; ranges and defaults are those that the server tells.

import { el, iconButton } from "./dom.js";

const KEPT = "bitinfer.settings";
const SHOWN = [
  ["temperature", "Temperature", 0.05],
  ["top_p", "Top-p", 0.01],
  ["top_k", "Top-k", 1],
  ["min_p", "Min-p", 0.01],
  ["max_tokens", "Most tokens", 1],
  ["seed", "Seed", 1],
  ["repetition_penalty", "Repetition penalty", 0.05],
  ["presence_penalty", "Presence penalty", 0.1],
  ["frequency_penalty", "Frequency penalty", 0.1],
];

export class Settings {
  /** `changed({system, settings})` is called after each change by the user. */
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.dialog = document.getElementById("settings");
    this.defaults = { system: "", values: {} };
    try {
      Object.assign(this.defaults, JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
    } catch {
      // what was kept is damaged, or nothing may be kept: the model's defaults
    }
    this.reset();
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  /** Those of a new chat: what was chosen last. */
  reset() {
    this.use(this.defaults.system, this.defaults.values);
  }

  /** Those that a conversation was held with. */
  use(system, values) {
    this.system = system;
    this.values = { ...values };
  }

  /** For a request; a retry with a seed takes the next one, or the text would be the same. */
  options(retries) {
    const options = { ...this.values };
    if (options.seed !== undefined) options.seed += retries;
    return options;
  }

  open() {
    this.#fill();
    this.dialog.showModal();
  }

  #fill() {
    const system = el("textarea", { rows: 5, value: this.system, placeholder: "None" });
    system.addEventListener("change", () => this.#change(() => (this.system = system.value.trim())));
    const reset = el("button", { type: "button", onclick: () => this.#reset() }, "Defaults of the model");
    this.dialog.replaceChildren(
      el("div", { class: "drawer-head" }, el("h2", { id: "settings-title" }, "Settings"), iconButton("close", "Close the settings", () => this.dialog.close())),
      el("label", { class: "field" }, el("span", {}, "System prompt"), system),
      el("div", { class: "fields" }, ...SHOWN.map((shown) => this.#field(...shown))),
      el("div", { class: "buttons" }, reset),
      el("p", { class: "note" }, "A field that is empty takes the model's own value, which it shows."),
    );
  }

  #field(name, label, step) {
    const about = this.model.sampling?.[name] ?? { low: 1, help: "The reply ends there at the latest" };
    const whole = Number.isInteger(step);
    const help = el("small", { id: `help-${name}` }, about.help);
    const input = el("input", {
      type: "number",
      step: whole ? 1 : "any",
      min: about.low,
      max: Math.min(about.high ?? Infinity, Number.MAX_SAFE_INTEGER),
      value: this.values[name] ?? "",
      placeholder: about.default ?? (name === "seed" ? "random" : "all that fit"),
      "aria-describedby": `help-${name}`,
    });
    input.addEventListener("change", () => {
      const good = input.checkValidity();
      help.textContent = good ? about.help : `Expected ${whole ? "a whole number" : "a number"} from ${input.min} to ${input.max}`;
      help.classList.toggle("wrong", !good);
      input.setAttribute("aria-invalid", String(!good));
      if (good) this.#change(() => this.#set(name, input.value));
    });
    return el("label", { class: "field" }, el("span", {}, label), input, help);
  }

  #set(name, text) {
    if (text === "") delete this.values[name];
    else this.values[name] = Number(text);
  }

  #reset() {
    this.#change(() => (this.values = {}));
    this.#fill();
  }

  #change(how) {
    how();
    this.defaults = { system: this.system, values: this.values };
    try {
      localStorage.setItem(KEPT, JSON.stringify(this.defaults));
    } catch {
      // nothing may be kept: it holds until the page is left
    }
    this.changed({ system: this.system, settings: this.values });
  }
}
