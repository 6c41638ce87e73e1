// How a message looks: its text, its thinking, its figures, and the buttons below it.

import { copyButton, el, icon, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";

const REASONS = {
  cancelled: "Stopped",
  length: "Cut off: the reply reached the most tokens that it may have",
  error: "Broken off",
};

export class TurnView {
  constructor(chat, node) {
    this.chat = chat;
    this.node = node;
    this.root = node.role === "user" ? this.#user() : this.#assistant();
  }

  #user() {
    this.text = el("div", { class: "bubble" }, this.node.text);
    const name = el("h2", { class: "unseen" }, "You");
    return el("article", { class: "turn user" }, name, this.text, this.#actions());
  }

  #assistant() {
    this.thought = el("div", { class: "thought" });
    this.summary = el("summary");
    this.fold = el("details", { hidden: true }, this.summary, this.thought);
    this.body = el("div", { class: "prose" });
    this.prose = new MarkdownView(this.body);
    this.thoughts = new MarkdownView(this.thought);
    const name = el("h2", { class: "unseen" }, this.chat.model.id);
    const root = el("article", { class: "turn assistant" }, name, this.fold, this.body);
    const written = this.chat.running?.node === this.node;
    root.setAttribute("aria-busy", String(written));
    if (!written) root.append(this.#actions());
    this.root = root;
    this.update();
    return root;
  }

  /** Show what the message holds by now. */
  update() {
    const { text, thinking } = this.node;
    const written = this.chat.running?.node === this.node;
    this.fold.hidden = !thinking;
    this.summary.textContent = written && !text ? "Thinking…" : "Thoughts";
    this.thoughts.update(thinking);
    this.prose.update(text);
    this.root.classList.toggle("waiting", written && !text);
  }

  #actions() {
    const { chat, node } = this;
    const reason = REASONS[node.reason];
    const row = el("div", { class: "actions" }, this.#switch(), copyButton("Copy the message", () => node.text));
    if (node.role === "user") row.append(iconButton("edit", "Edit the message", () => this.edit()));
    if (node.role !== "user" || chat.thread.leaf === node) row.append(iconButton("retry", "Another reply", () => chat.retry(node)));
    const facts = [reason, node.stats].filter(Boolean).join(" · ");
    if (facts) row.append(el("span", { class: "facts" }, facts));
    return row;
  }

  /** ‹ 2/3 ›, where a message has others beside it. */
  #switch() {
    const all = this.chat.thread.siblings(this.node);
    if (all.length < 2) return null;
    const at = all.indexOf(this.node);
    const step = (name, label, to) => {
      const button = iconButton(name, label, () => this.chat.take(all[to]));
      button.disabled = !(to in all);
      return button;
    };
    const place = el("span", { "aria-label": `${at + 1} of ${all.length}` }, `${at + 1}/${all.length}`);
    return el("span", { class: "switch" }, step("left", "The version before", at - 1), place, step("right", "The next version", at + 1));
  }

  focusSwitch() {
    this.root.querySelector(".switch button:enabled")?.focus();
  }

  /** Put a box in the place of a question; sending it begins another branch. */
  edit() {
    const area = el("textarea", { value: this.node.text, rows: Math.min(this.node.text.split("\n").length + 1, 12), "aria-label": "Edit the message" });
    const leave = () => {
      form.replaceWith(this.text);
      this.root.querySelector("[aria-label='Edit the message']").focus();
    };
    const send = (event) => {
      event.preventDefault();
      if (area.value.trim()) this.chat.ask(area.value.trim(), this.node);
    };
    const buttons = el("div", { class: "buttons" }, el("button", { type: "button", onclick: leave }, "Cancel"), el("button", { class: "primary" }, "Send"));
    const form = el("form", { class: "edit", onsubmit: send }, area, buttons);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && event.target === area && !event.shiftKey && !event.isComposing) send(event);
    });
    this.text.replaceWith(form);
    area.focus();
  }
}

/** An error in words, with its mend. */
export class ProblemView {
  constructor(problem, retry) {
    const again = el("button", { type: "button", onclick: retry }, icon("retry"), "Try again");
    this.root = el("div", { class: "problem", role: "alert" }, el("p", {}, problem.message), again);
  }
}
