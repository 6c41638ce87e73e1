// The list of conversations: search, rename, export, delete, and news from other tabs and commands.

import { events, json, Problem, text } from "./api.js";
import { confirm, openMenu, prompt } from "./dialogs.js";
import { el, iconButton, toast } from "./dom.js";

const SEARCH_AFTER_MS = 150;
const AGAIN_AFTER_MS = 3000;

export class Conversations {
  /** `open(id)` shows one; `news()` is called when somebody else may have written. */
  constructor({ open, news, gone }) {
    Object.assign(this, { open, news, gone });
    this.list = document.getElementById("list");
    this.note = document.getElementById("list-note");
    this.search = document.getElementById("search");
    this.current = null;
    this.asked = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.refresh(), SEARCH_AFTER_MS);
    });
    document.addEventListener("visibilitychange", () => this.listen());
  }

  async refresh() {
    const asked = ++this.asked;
    const words = this.search.value.trim();
    try {
      const found = await json(`/history?search=${encodeURIComponent(words)}`);
      if (asked !== this.asked) return; // a later question has been asked
      this.#fill(found.data, words);
    } catch (problem) {
      this.shown = "";
      this.#tell(problem.code === "no_history" ? "Conversations are not kept here." : problem.message);
    }
  }

  #fill(conversations, words) {
    const shown = JSON.stringify([conversations, words, this.current]);
    if (shown === this.shown) return; // whoever is at a row stays there
    this.shown = shown;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.list.replaceChildren(...conversations.map((conversation) => this.#row(conversation)));
    if (focused) this.list.querySelector(`[data-key="${focused}"]`)?.focus();
    if (conversations.length) this.#tell("");
    else this.#tell(words ? "Nothing found." : "Conversations will be listed here.");
  }

  #tell(words) {
    this.note.textContent = words;
    this.note.hidden = !words;
  }

  #row(conversation) {
    const { id, title, excerpt, updated } = conversation;
    const name = title || "Untitled";
    const link = el("a", { href: `#${id}`, title: `${name}\n${new Date(updated).toLocaleString()}` }, el("span", { class: "name" }, name));
    link.dataset.key = `open-${id}`;
    if (excerpt) link.append(el("span", { class: "excerpt" }, excerpt));
    if (id === this.current) link.setAttribute("aria-current", "page");
    link.addEventListener("click", () => id === this.current && this.open(id)); // else its hash changes
    const more = iconButton("more", `What to do with ${name}`, () => openMenu(more, this.#choices(conversation)));
    more.dataset.key = `more-${id}`;
    return el("li", {}, link, more);
  }

  #choices({ id, title }) {
    return [
      ["Rename", () => this.#rename(id, title)],
      ["Export as Markdown", () => this.#export(id, "markdown", "md")],
      ["Export as JSON", () => this.#export(id, "json", "json")],
      ["Delete", () => this.#delete(id, title)],
    ];
  }

  async #rename(id, before) {
    const title = await prompt({ title: "Rename the conversation", label: "Title", value: before, accept: "Rename", limit: 500 });
    if (title) await this.#try(() => json(`/history/${id}`, { method: "PATCH", body: { title } }));
    this.news();
  }

  async #delete(id, title) {
    const sure = await confirm({ title: "Delete the conversation?", text: `“${title || "Untitled"}” is removed for good.`, accept: "Delete" });
    if (sure && (await this.#try(() => json(`/history/${id}`, { method: "DELETE" })))) this.gone(id);
  }

  async #export(id, format, extension) {
    await this.#try(async () => {
      const content = await text(`/history/${id}/export?format=${format}`);
      const href = URL.createObjectURL(new Blob([content]));
      el("a", { href, download: `conversation-${id}.${extension}` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 10000);
    });
  }

  async #try(work) {
    try {
      await work();
      await this.refresh();
      return true;
    } catch (problem) {
      toast(problem.message);
      return false;
    }
  }

  /** Hear of what others write while the page is seen (a browser has few connections to a server). */
  async listen() {
    this.listening?.abort();
    clearTimeout(this.again);
    if (document.hidden) return;
    const listening = new AbortController();
    this.listening = listening;
    try {
      for await (const event of events("/history/events", { signal: listening.signal })) {
        if (["open", "changed"].includes(event.name)) this.news();
      }
    } catch (cause) {
      if (listening.signal.aborted || (cause instanceof Problem && cause.code === "no_history")) return;
    }
    if (!listening.signal.aborted) this.again = setTimeout(() => this.listen(), AGAIN_AFTER_MS);
  }
}
