// Puts the page together: what is shown, which key does what, which conversation is open.

import { json, onKeyNeeded } from "./api.js";
import { Chat } from "./chat.js";
import { Conversations } from "./conversations.js";
import { prompt } from "./dialogs.js";
import { icon, toast } from "./dom.js";
import { Settings } from "./settings.js";
import { Keeper, Thread } from "./thread.js";

const id = (name) => document.getElementById(name);
const [message, send, side] = [id("message"), id("send"), id("side")];
const narrow = matchMedia("(max-width: 760px)");
const dark = matchMedia("(prefers-color-scheme: dark)");
let model, chat, settings, conversations;

onKeyNeeded((wrong) =>
  prompt({
    title: "API key",
    text: `${wrong ? "That was not the key. " : ""}This server asks for the key that it was started with (--api-key). It is forgotten when this tab is closed.`,
    label: "API key",
    type: "password",
    accept: "Go on",
  }),
);

function dress() {
  const icons = { "side-close": "close", "side-open": "menu", "settings-open": "sliders", latest: "down" };
  for (const [name, path] of Object.entries(icons)) id(name).append(icon(path));
  showTheme();
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function showTheme() {
  const label = isDark() ? "Use the light theme" : "Use the dark theme";
  id("theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
  id("theme").setAttribute("aria-label", label);
  id("theme").title = label;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("bitinfer.theme", theme);
  } catch {
    // it holds until the page is left
  }
  showTheme();
}

function showSide(open) {
  side.classList.toggle("open", open);
  id("backdrop").hidden = !open;
  id("side-open").setAttribute("aria-expanded", String(open));
  if (open) id("search").focus();
  else if (narrow.matches) message.focus();
}

/** What depends on the thread and on whether a reply is being written. */
function showState() {
  const { busy, thread } = chat;
  document.body.classList.toggle("busy", busy);
  send.replaceChildren(icon(busy ? "stop" : "send"));
  send.setAttribute("aria-label", busy ? "Stop the reply" : "Send");
  send.disabled = !busy && !message.value.trim();
  id("title").textContent = thread.title || (thread.path.length ? thread.path[0].text.slice(0, 60) : "New chat");
  document.title = thread.title ? `${thread.title} · bitinfer` : "bitinfer";
  id("context").hidden = !chat.used;
  id("context-meter").setAttribute("aria-valuemax", model.context_length);
  id("context-meter").setAttribute("aria-valuenow", chat.used);
  id("context-meter").firstChild.style.width = `${(100 * chat.used) / model.context_length}%`;
  id("context-text").textContent = `${chat.used.toLocaleString()} / ${model.context_length.toLocaleString()}`;
  id("context").title = "Tokens of the context that are in use";
}

function showThread(thread) {
  if (thread.id === null) settings.reset();
  else settings.use(thread.system, thread.settings);
  Object.assign(thread, { system: settings.system, settings: settings.values });
  conversations.current = thread.id;
  chat.show(thread);
}

/** When a reply begins or ends, and when another thread is shown. */
async function chatChanged() {
  showState();
  await chat.keeper.writing;
  const number = chat.thread.id;
  if (number !== null && location.hash !== `#${number}`) history.replaceState(null, "", `#${number}`);
  conversations.current = number;
  showState();
  conversations.refresh();
}

async function open(number) {
  showSide(false);
  if (number === chat.thread.id) return;
  try {
    showThread(new Thread(await json(`/history/${number}`)));
  } catch (problem) {
    toast(problem.message);
    begin();
  }
}

function begin() {
  showSide(false);
  history.replaceState(null, "", location.pathname);
  showThread(new Thread());
  message.focus();
}

/** Somebody wrote: take up what is new of the conversation on show. */
async function news() {
  conversations.refresh();
  const { thread: before, keeper } = chat;
  if (before.id === null) return;
  const { writes } = keeper;
  await keeper.writing; // or what this page has just said would be missing
  const facts = await json(`/history/${before.id}`).catch((problem) => problem);
  const meanwhile = chat.thread !== before || keeper.writes !== writes; // then there is more news soon
  if (meanwhile || chat.busy || document.querySelector("form.edit")) return;
  if (facts.status === 404) begin();
  else if (facts.messages) takeUp(before, new Thread(facts));
}

function takeUp(before, after) {
  const content = ({ path, nodes }) => JSON.stringify([path.map((node) => [node.id, node.text, node.thinking, node.reason]), nodes.length]);
  if (content(before) === content(after)) {
    before.title = after.title;
    return showState();
  }
  const near = chat.nearEnd;
  const at = chat.log.scrollTop;
  const used = chat.used;
  showThread(after);
  chat.used = used;
  if (!near) chat.log.scrollTop = at;
  return showState();
}

function grow() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
}

function submit(event) {
  event?.preventDefault();
  if (chat.busy) return chat.stop();
  const text = message.value.trim();
  if (!text) return undefined;
  message.value = "";
  grow();
  return chat.ask(text);
}

function onKey(event) {
  const typing = /^(INPUT|TEXTAREA)$/.test(event.target.tagName);
  const find = (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing);
  if (document.querySelector("dialog[open]")) return;
  if (find) {
    event.preventDefault();
    if (narrow.matches) showSide(true);
    id("search").focus();
    id("search").select();
  } else if (event.key === "Escape" && side.classList.contains("open")) showSide(false);
  else if (event.key === "Escape" && event.target === id("search")) message.focus();
  else if (event.key === "Escape" && chat.busy) chat.stop();
}

function listen() {
  id("composer").addEventListener("submit", submit);
  message.addEventListener("input", () => (grow(), showState()));
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!chat.busy) submit();
  });
  document.addEventListener("keydown", onKey);
  id("new-chat").addEventListener("click", begin);
  id("side-open").addEventListener("click", () => showSide(true));
  for (const name of ["side-close", "backdrop"]) id(name).addEventListener("click", () => showSide(false));
  id("theme").addEventListener("click", switchTheme);
  dark.addEventListener("change", showTheme);
  id("settings-open").addEventListener("click", () => settings.open());
  id("latest").addEventListener("click", () => chat.toEnd());
  id("log").addEventListener("scroll", () => (id("latest").hidden = chat.nearEnd), { passive: true });
  addEventListener("pagehide", () => chat.keeper.hurry());
  addEventListener("hashchange", () => (location.hash.length > 1 ? open(Number(location.hash.slice(1))) : begin()));
}

async function start() {
  dress();
  [model] = (await json("/v1/models")).data;
  const keeper = new Keeper((problem) => toast(`What follows is not kept: ${problem.message}`));
  settings = new Settings(model, (held) => {
    Object.assign(chat.thread, held);
    keeper.change(chat.thread, held);
  });
  chat = new Chat({ keeper, settings, model, changed: chatChanged });
  conversations = new Conversations({ open, news, gone: (number) => number === chat.thread.id && begin() });
  id("turns").dataset.model = model.id;
  message.placeholder = `Message ${model.id}`;
  listen();
  showThread(new Thread());
  if (location.hash.length > 1) await open(Number(location.hash.slice(1)));
  conversations.listen();
  if (!narrow.matches) message.focus();
}

start().catch((problem) => toast(problem.message));
