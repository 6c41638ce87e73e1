// Small questions, and the menu of a conversation. The browser's own dialogs keep the focus right.

import { el } from "./dom.js";

/** An empty dialog in the place of the last one, whose `close` event may be still to come. */
function emptyDialog() {
  const last = document.getElementById("ask");
  const dialog = last.cloneNode(false);
  last.replaceWith(dialog);
  return dialog;
}

/** Ask for a text; null if the user leaves. */
export function prompt({ title, text = "", label, value = "", accept, type = "text", limit = 4096 }) {
  const input = el("input", { type, value, maxLength: limit, required: true, autocomplete: "off", "aria-label": label });
  return ask(title, text, accept, [input], () => input.value.trim());
}

/** Whether the user agrees. */
export async function confirm({ title, text, accept }) {
  return (await ask(title, text, accept, [], () => "yes", "danger")) !== null;
}

function ask(title, text, accept, fields, answer, kind = "primary") {
  const dialog = emptyDialog();
  return new Promise((resolve) => {
    const leave = el("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const form = el(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          dialog.close(answer());
        },
      },
      el("h2", { id: "ask-title" }, title),
      text ? el("p", {}, text) : null,
      ...fields,
      el("div", { class: "buttons" }, leave, el("button", { class: kind }, accept)),
    );
    dialog.append(form);
    dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
    dialog.showModal();
    fields[0]?.select();
  });
}

/** A menu of [label, action] below `button`. */
export function openMenu(button, choices) {
  const menu = document.getElementById("menu");
  const made = choices.map(([label, action]) =>
    el("button", { type: "button", class: label === "Delete" ? "danger" : "", onclick: () => (menu.hidePopover(), button.focus(), action()) }, label),
  );
  menu.replaceChildren(...made);
  menu.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    made[(made.indexOf(document.activeElement) + step + made.length) % made.length].focus();
  };
  menu.showPopover();
  const place = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(place.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.min(place.bottom + 4, innerHeight - menu.offsetHeight - 8)}px`;
  made[0].focus();
}
