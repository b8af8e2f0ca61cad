// Parts of the page. What comes from outside only ever becomes text, never markup.

const element = (id) => document.getElementById(id);

/** An element with attributes; functions listen. */
function made(tag, attributes, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") found.addEventListener(name, value);
    else if (value !== false) found.setAttribute(name, value);
  }
  found.append(...children);
  return found;
}

/** The pages of a state, folio by folio; what differs from the state before is marked. */
function drawnPages(state, before) {
  const now = sectionsOf(state), was = sectionsOf(before), folios = new Map();
  for (let p = 0; p < nPages; p++) setdefault(folios, head(state, p), []).push(p);
  const cell = (p) => {
    const flags = page_flags(now, p), changed = flags !== page_flags(was, p);
    return made("div", { class: `cell ${flags[0]}${changed ? " changed" : ""}` }, made("b", {}, `page ${p} `),
      made("span", { class: "flags" }, flags));
  };
  return made("div", { class: "folios" }, ...[...folios.values()].map((pages) => made("div", { class: "folio" }, ...pages.map(cell))));
}

/** Who waits in a state, and for what, a line each. */
const drawnWaits = (state) => made("ul", { class: "actors" },
  ...stalls(state).map((some) => made("li", {}, `${some.kind}: ${some.wait.line()}`)));

/** A list of choices in a select element. */
function offer(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => made("option", { value, selected: value === chosen }, text)));
}
