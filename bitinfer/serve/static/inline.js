// What is inside of a line of markdown: code, links, emphasis. Images become links; HTML stays text.

import { el } from "./dom.js";

const ESCAPE = /\\([!-/:-@[-`{-~])/y;
const CODE = /(`+)/y;
const LINK = /(!?)\[((?:[^\[\]\\]|\\.|\[[^\[\]]{0,200}\]){0,2000})\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)?)>?(?:\s+"[^"]{0,500}")?\s*\)/y;
const AUTOLINK = /<?(https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]*_])>?/y;
const MARKS = /(\*\*|__|~~|\*|_)/y;
const TAGS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const PLAIN = /[^\\`!\[<h*_~\n]+/y;
const MOST_DEPTH = 6;

/** Nodes of a text. */
export function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  let at = 0;
  const put = (node) => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
    if (node) nodes.push(node);
  };
  while (at < text.length) {
    const found = match(PLAIN, text, at);
    if (found) {
      plain += found[0];
      at += found[0].length;
      continue;
    }
    const taken = depth < MOST_DEPTH ? take(text, at, depth) : null;
    if (!taken) plain += text[at++];
    else {
      if (typeof taken.node === "string") plain += taken.node;
      else put(taken.node);
      at = taken.end;
    }
  }
  put(null);
  return nodes;
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function take(text, at, depth) {
  if (text[at] === "\n") return { node: el("br"), end: at + 1 };
  const escaped = match(ESCAPE, text, at);
  if (escaped) return { node: escaped[1], end: at + 2 };
  return takeCode(text, at) ?? takeLink(text, at, depth) ?? takeEmphasis(text, at, depth);
}

function takeCode(text, at) {
  const ticks = match(CODE, text, at)?.[1];
  if (!ticks) return null;
  for (let end = at + ticks.length; (end = text.indexOf(ticks, end)) >= 0; ) {
    let after = end;
    while (text[after] === "`") after++;
    if (after - end === ticks.length) {
      const inside = text.slice(at + ticks.length, end).replace(/^ (.*[^ ].*) $/s, "$1");
      return { node: el("code", {}, inside), end: after };
    }
    end = after;
  }
  return { node: ticks, end: at + ticks.length };
}

function takeLink(text, at, depth) {
  const auto = match(AUTOLINK, text, at);
  if (auto) return { node: link(auto[1], [auto[1]]), end: at + auto[0].length };
  const found = match(LINK, text, at);
  if (!found) return null;
  const [all, image, label, address] = found;
  const children = image ? [label || "image"] : inline(label, depth + 1).flatMap(unlinked);
  return { node: link(address, children), end: at + all.length };
}

/** A link to the web; what leads elsewhere (javascript:, data:, this server) is its text only. */
function link(address, children) {
  const safe = /^(https?:\/\/|mailto:)/i.test(address) && URL.canParse(address);
  if (!safe) return el("span", {}, ...children);
  const rel = "noopener noreferrer nofollow";
  return el("a", { href: address, target: "_blank", rel, title: address }, ...children);
}

/** No links in links. */
function unlinked(node) {
  return node.nodeName === "A" ? [...node.childNodes] : [node];
}

function takeEmphasis(text, at, depth) {
  const mark = match(MARKS, text, at)?.[1];
  const start = at + (mark?.length ?? 0);
  const word = /[\p{L}\p{N}]/u;
  if (!mark || !/\S/.test(text[start] ?? " ") || (mark[0] === "_" && word.test(text[at - 1] ?? ""))) return null;
  for (let end = start + 1; (end = text.indexOf(mark, end)) >= 0; end += mark.length) {
    const inside = text.slice(start, end);
    const twice = mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark);
    const inWord = mark[0] === "_" && word.test(text[end + mark.length] ?? "");
    if (twice) end++;
    else if (/\S$/.test(inside) && !inWord && text[end - 1] !== "\\") {
      return { node: el(TAGS[mark], {}, ...inline(inside, depth + 1)), end: end + mark.length };
    }
  }
  return { node: mark, end: start };
}
