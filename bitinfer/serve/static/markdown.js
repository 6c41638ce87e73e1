// Markdown as DOM: blocks here, what is inside of a line in inline.js. HTML stays the text it is.

import { copyButton, el } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(\s+|$)/;
const NESTED = 2; // spaces more than the list's own: an item of an inner list
const DELIMITERS = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MOST_DEPTH = 8; // of lists and quotes in each other

/** Shows a text that grows: blocks that did not change keep their elements. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.blocks = [];
  }

  update(text) {
    const blocks = split(text.split("\n"), 0);
    let same = 0;
    while (same < blocks.length && same < this.blocks.length && equal(blocks[same], this.blocks[same])) same++;
    const [next, last] = [blocks[same], this.blocks[same]];
    if (next && last && next.kind === "code" && last.kind === "code" && next.language === last.language) {
      this.root.children[same].querySelector("code").textContent = next.lines.join("\n");
      same++;
    }
    while (this.root.children.length > same) this.root.lastChild.remove();
    this.root.append(...blocks.slice(same).map((block) => render(block, 0)));
    this.blocks = blocks;
  }
}

function equal(one, other) {
  return one.kind === other.kind && one.language === other.language && one.lines.join("\n") === other.lines.join("\n");
}

/** Lines as blocks {kind, lines, …}. */
function split(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const block = take(lines, at, depth);
    blocks.push(block);
    at = block.end;
  }
  return blocks;
}

function take(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return takeCode(lines, at, fence);
  if (HEADING.test(line)) return { kind: "heading", lines: [line], end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", lines: [line], end: at + 1 };
  if (depth < MOST_DEPTH && QUOTE.test(line)) return takeWhile("quote", lines, at, (next) => QUOTE.test(next));
  if (depth < MOST_DEPTH && itemOf(line, 2)) return takeList(lines, at);
  if (isTable(lines, at)) return takeWhile("table", lines, at, (next) => next.includes("|"));
  return takeWhile("paragraph", lines, at, (next, n) => next.trim() && !begins(lines, n));
}

function begins(lines, at) {
  const line = lines[at];
  const list = /^ {0,3}([-*+]|1[.)])\s+\S/.test(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || list || isTable(lines, at);
}

function isTable(lines, at) {
  const next = lines[at + 1] ?? "";
  return lines[at].includes("|") && next.includes("-") && next.includes("|") && DELIMITERS.test(next);
}

function takeWhile(kind, lines, at, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end], end)) end++;
  return { kind, lines: lines.slice(at, end), end };
}

function takeCode(lines, at, [, mark, language]) {
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end++;
  return { kind: "code", language: language.trim().split(/\s/)[0], lines: lines.slice(at + 1, end), end: end + 1 };
}

function takeList(lines, at) {
  const [, { length: base }, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  let end = at + 1;
  for (let next = end; next < lines.length; next++) {
    const line = lines[next];
    if (!line.trim()) continue;
    const outer = line.length - line.trimStart().length < base + NESTED;
    const item = itemOf(line, base);
    if (item ? /\d/.test(item[2]) !== ordered : outer && (!lines[next - 1].trim() || begins(lines, next))) break;
    end = next + 1;
  }
  return { kind: "list", ordered, base, lines: lines.slice(at, end), end };
}

/** The line as an item of a list that is `base` spaces from the left, or null. */
function itemOf(line, base) {
  const found = RULE.test(line) ? null : ITEM.exec(line);
  return found && found[1].length < base + NESTED ? found : null;
}

function render(block, depth) {
  return RENDERERS[block.kind](block, depth);
}

function nested(lines, depth) {
  return split(lines, depth + 1).map((block) => render(block, depth + 1));
}

const RENDERERS = {
  paragraph: ({ lines }) => el("p", {}, ...inline(lines.join("\n").trim())),
  rule: () => el("hr"),
  quote: ({ lines }, depth) => el("blockquote", {}, ...nested(lines.map((line) => line.replace(QUOTE, "")), depth)),
  heading: ({ lines }) => {
    const [, marks, text] = HEADING.exec(lines[0]);
    return el(`h${Math.min(marks.length + 1, 6)}`, {}, ...inline(text)); // h1 is the page's
  },
  code: ({ language, lines }) => {
    const code = el("code", {}, lines.join("\n"));
    const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), copyButton("Copy the code", () => code.textContent));
    return el("figure", { class: "code" }, head, el("pre", { tabIndex: 0, "aria-label": `Code, ${language || "text"}` }, code));
  },
  list: ({ ordered, base, lines }, depth) => {
    const items = [];
    for (const line of lines) {
      const found = itemOf(line, base);
      if (found) items.push({ indent: found[0].length, lines: [line.slice(found[0].length)] });
      else items.at(-1).lines.push(dedent(line, items.at(-1).indent));
    }
    const start = ordered ? parseInt(lines[0].trim(), 10) : null;
    const made = el(ordered ? "ol" : "ul", ordered && start !== 1 ? { start } : {});
    made.append(...items.map((item) => el("li", {}, ...tight(nested(item.lines, depth)))));
    return made;
  },
  table: ({ lines }) => {
    const aligns = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
    const row = (line, tag) =>
      el("tr", {}, ...aligns.map((align, n) => el(tag, { class: align }, ...inline(cells(line)[n] ?? ""))));
    const body = el("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
    const table = el("table", {}, el("thead", {}, row(lines[0], "th")), body);
    return el("div", { class: "table", tabIndex: 0, role: "region", "aria-label": "Table" }, table);
  },
};

function dedent(line, indent) {
  const spaces = line.length - line.trimStart().length;
  return line.slice(Math.min(spaces, indent));
}

/** An item that is one paragraph needs none. */
function tight(children) {
  const [first, ...rest] = children;
  return first?.tagName === "P" ? [...first.childNodes, ...rest] : children;
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}
