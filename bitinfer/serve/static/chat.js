// The chat: sends a conversation, shows the reply as it comes, and what can be done with it.

import { chunks } from "./api.js";
import { say } from "./dom.js";
import { keptPiece, Thread } from "./thread.js";
import { ProblemView, TurnView } from "./turns.js";

const NEAR_END = 80; // pixels: who is so near to the end follows it

export class Chat {
  /** `changed` is called when a reply begins or ends, and when the thread on show is another one. */
  constructor({ keeper, settings, model, changed }) {
    Object.assign(this, { keeper, settings, model, changed });
    this.thread = new Thread();
    this.running = null; // {thread, node, controller}
    this.turns = document.getElementById("turns");
    this.log = document.getElementById("log");
    this.views = new Map();
    this.used = 0; // tokens of the context
  }

  get busy() {
    return this.running !== null;
  }

  show(thread) {
    this.thread = this.running && thread.id !== null && this.running.thread.id === thread.id ? this.running.thread : thread;
    this.used = 0;
    this.render();
    this.toEnd();
    this.changed();
  }

  render() {
    this.views = new Map(this.thread.path.map((node) => [node, new TurnView(this, node)]));
    this.turns.replaceChildren(...[...this.views.values()].map((view) => view.root));
    document.body.classList.toggle("empty", this.views.size === 0);
  }

  /** Ask a new question; after an edited one, in its place. */
  ask(text, edited = null) {
    if (this.busy) return;
    const parent = edited ? edited.parent : this.thread.leaf;
    const node = this.thread.add("user", parent, text);
    this.keeper.message(this.thread, node);
    this.reply(node);
  }

  retry(node) {
    if (!this.busy) this.reply(node.role === "user" ? node : node.parent);
  }

  take(node) {
    if (this.busy) return;
    this.thread.take(node);
    this.keeper.change(this.thread, { leaf_id: this.thread.leaf.id });
    this.render();
    this.views.get(node).focusSwitch();
  }

  stop() {
    this.running?.controller.abort();
  }

  async reply(question) {
    const thread = this.thread;
    thread.leaf = question;
    const messages = this.#messages(thread);
    const node = thread.add("assistant", question);
    const running = { thread, node, controller: new AbortController(), tokens: 0, begun: 0, ended: 0 };
    this.running = running;
    this.render();
    this.toEnd();
    this.changed();
    say("The reply is being written");
    const retries = thread.siblings(node).length - 1;
    let problem = null;
    try {
      const body = { messages, ...this.settings.options(retries) };
      for await (const chunk of chunks(body, running.controller.signal)) this.#take(running, chunk);
    } catch (cause) {
      if (cause.name === "AbortError") node.reason = "cancelled";
      else [node.reason, problem] = ["error", cause];
    }
    this.#end(running, problem);
  }

  /** What the model is told: the active branch, without what it thought. */
  #messages(thread) {
    const system = this.settings.system ? [{ role: "system", content: this.settings.system }] : [];
    return [...system, ...thread.path.map(({ role, text }) => ({ role, content: text }))];
  }

  #take(running, chunk) {
    const { node, thread } = running;
    if (chunk.usage) {
      this.used = chunk.usage.total_tokens;
      running.tokens = chunk.usage.completion_tokens;
    }
    const choice = chunk.choices[0];
    if (!choice) return;
    const [thinking, text] = [choice.delta.reasoning_content ?? "", choice.delta.content ?? ""];
    if (thinking || text) {
      const now = performance.now();
      if (!node.text && !node.thinking) {
        this.keeper.message(thread, node);
        running.begun = now;
      }
      running.ended = now;
      this.keeper.piece(node, keptPiece(node, { thinking, text }));
      node.thinking += thinking;
      node.text += text;
      this.#draw(node);
    }
    if (choice.finish_reason) node.reason = choice.finish_reason;
  }

  #end(running, problem) {
    const { node, thread } = running;
    this.running = null;
    const seconds = (running.ended - running.begun) / 1000;
    if (running.tokens > 1 && seconds > 0) {
      node.stats = `${((running.tokens - 1) / seconds).toFixed(1)} tokens/s · ${running.tokens} tokens`;
    }
    const said = node.text || node.thinking;
    if (said) this.keeper.finish(node, node.reason || "stop");
    else if (problem || node.reason === "cancelled") thread.remove(node);
    const seen = this.thread === thread;
    if (seen) {
      this.#grow(() => {
        this.render();
        if (problem) this.turns.append(new ProblemView(problem, () => this.retry(thread.leaf)).root);
      });
    }
    say(problem ? problem.message : node.text);
    this.changed();
  }

  #draw(node) {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.#grow(() => this.views.get(node)?.update());
    });
  }

  /** Change what is shown: who was near the end before is at the end after it. */
  #grow(change) {
    const near = this.nearEnd;
    change();
    if (near) this.toEnd();
  }

  get nearEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END;
  }

  toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }
}
