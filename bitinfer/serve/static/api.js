// Talks to the server: JSON, server-sent events, and the API key where one is needed.

const KEY = "bitinfer.key";
const MOST_KEPT = 16000; // characters; browsers let 64 KiB outlive a page
let askForKey = async () => null;
let asking = null;

/** `ask(wrong)` returns a key that the user typed, or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** What went wrong, in words that say how to mend it. */
export class Problem extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const MENDS = {
  context_length_exceeded: "The conversation no longer fits the model's context. Begin a new chat, or edit an earlier message.",
  no_chat_template: "This model cannot chat: it has no chat template. Its completions are at /v1/completions.",
};

function problem(error, status) {
  const code = error?.code ?? "";
  const message = error?.message ?? `the server answered ${status}`;
  return new Problem(MENDS[code] ?? message[0].toUpperCase() + message.slice(1), code, status);
}

/** The response, if it is a good one; asks for the key as long as it is refused. */
async function send(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = {};
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      const sent = body && JSON.stringify(body);
      const keepalive = path.startsWith("/history") && sent?.length < MOST_KEPT; // also when the page is left
      response = await fetch(path, { method, headers, signal, body: sent, keepalive, cache: "no-store" });
    } catch (cause) {
      if (cause.name === "AbortError") throw cause;
      throw new Problem("The server does not answer. Is “bitinfer serve” still running?", "offline");
    }
    if (response.ok) return response;
    if (response.status !== 401) {
      const answer = await response.json().catch(() => ({}));
      throw problem(answer.error, response.status);
    }
    if (sessionStorage.getItem(KEY) !== key) continue; // it was given meanwhile
    asking ??= askForKey(key !== null).finally(() => (asking = null));
    const given = await asking;
    if (!given) throw new Problem("The server needs its API key: reload the page to be asked again.", "no_key", 401);
    sessionStorage.setItem(KEY, given);
  }
}

export async function json(path, options) {
  return (await send(path, options)).json();
}

export async function text(path) {
  return (await send(path)).text();
}

/** Yields {name, data} of each server-sent event. */
export async function* events(path, options) {
  const response = await send(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const event = { name: "message", data: "" };
        for (const line of part.split("\n")) {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          if (line.startsWith("data: ")) event.data += line.slice(6);
        }
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Yields the chunks of a streamed reply; an error on the way is thrown. */
export async function* chunks(body, signal) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    for await (const { data } of events("/v1/chat/completions", { method: "POST", body: asked, signal })) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw problem(chunk.error, 500);
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof Problem || cause.name === "AbortError") throw cause;
    throw new Problem("The connection broke off while the reply was written.", "offline");
  }
  throw new Problem("The server ended before the reply did.", "offline");
}
