// One conversation as a tree of messages, and how it is kept on the server while it is written.

import { json } from "./api.js";

const OPEN = "<think>";
const CLOSE = "</think>";
const SAVE_EVERY_MS = 500;

export class Thread {
  constructor(facts = { id: null, title: "", system: null, settings: {}, messages: [], leaf_id: null }) {
    this.id = facts.id;
    this.title = facts.title;
    this.system = facts.system ?? "";
    this.settings = facts.settings;
    this.nodes = [];
    const known = new Map();
    for (const message of facts.messages) {
      const node = this.add(message.role, known.get(message.parent_id) ?? null);
      Object.assign(node, { id: message.id, reason: message.finish_reason ?? "" }, thinkingOf(message));
      known.set(message.id, node);
    }
    this.leaf = known.get(facts.leaf_id) ?? null;
  }

  /** A new message, which is the end of the conversation. */
  add(role, parent, text = "") {
    const node = { id: null, role, parent, text, thinking: "", reason: "", stats: "" };
    this.nodes.push(node);
    this.leaf = node;
    return node;
  }

  remove(node) {
    this.nodes.splice(this.nodes.indexOf(node), 1);
    this.leaf = node.parent;
  }

  /** The active branch, oldest first. */
  get path() {
    const path = [];
    for (let node = this.leaf; node; node = node.parent) path.unshift(node);
    return path;
  }

  /** The messages among which a switch chooses: those in the same place. */
  siblings(node) {
    return this.nodes.filter((other) => other.parent === node.parent && other.role === node.role);
  }

  /** Take the branch of a message, to its newest end. */
  take(node) {
    for (let next = node; next; next = this.nodes.findLast((other) => other.parent === next)) this.leaf = next;
  }
}

/** As the command line keeps it: thinking in its tags before the answer. */
function thinkingOf({ role, content }) {
  const text = content.trimStart();
  if (role !== "assistant" || !text.startsWith(OPEN)) return { text: content };
  const end = text.indexOf(CLOSE);
  if (end < 0) return { text: "", thinking: text.slice(OPEN.length).trim() };
  return { text: text.slice(end + CLOSE.length).trimStart(), thinking: text.slice(OPEN.length, end).trim() };
}

/** Keeps threads, one write after the other; a failure is told once, and the chat goes on. */
export class Keeper {
  constructor(failed) {
    this.off = false;
    this.failed = failed;
    this.writing = Promise.resolve();
    this.writes = 0; // how many there have been
    this.pieces = "";
    this.timer = 0;
  }

  message(thread, node) {
    const { role, text } = node;
    const body = { role, content: role === "user" ? text : "" };
    return this.#then(async () => {
      if (thread.id === null) {
        const settings = thread.settings;
        const made = await json("/history", { method: "POST", body: { message: body, system: thread.system, settings } });
        Object.assign(thread, { id: made.id, title: made.title });
        node.id = made.messages[0].id;
        return;
      }
      const parent_id = node.parent?.id ?? null;
      const path = `/history/${thread.id}/messages`;
      node.id = (await json(path, { method: "POST", body: { ...body, parent_id } })).id;
    });
  }

  /** Add to a reply; written now and then. */
  piece(node, text) {
    this.pieces += text;
    this.node = node;
    this.timer ||= setTimeout(() => this.#flush(node, {}), SAVE_EVERY_MS);
  }

  finish(node, finish_reason) {
    return this.#flush(node, { finish_reason });
  }

  /** The page is left: what waits is written now. */
  hurry() {
    if (this.pieces) this.#flush(this.node, {});
  }

  change(thread, body) {
    return this.#then(() => thread.id !== null && json(`/history/${thread.id}`, { method: "PATCH", body }));
  }

  #flush(node, more) {
    clearTimeout(this.timer);
    this.timer = 0;
    const piece = this.pieces;
    this.pieces = "";
    const path = () => `/history/messages/${node.id}`;
    return this.#then(() => node.id !== null && json(path(), { method: "PATCH", body: { piece, ...more } }));
  }

  #then(work) {
    this.writes++;
    this.writing = this.writing.then(async () => {
      if (this.off) return;
      try {
        await work();
      } catch (problem) {
        this.off = true;
        if (problem.code !== "no_history") this.failed(problem);
      }
    });
    return this.writing;
  }
}

/** What to add to a kept reply for a piece of one: the tags around its thinking. */
export function keptPiece(node, { thinking = "", text = "" }) {
  let piece = "";
  if (thinking) piece += (node.thinking ? "" : `${OPEN}\n`) + thinking;
  if (text) piece += (node.thinking && !node.text ? `\n${CLOSE}\n\n` : "") + text;
  return piece;
}
